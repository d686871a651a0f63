"""Images in whatever form they come, and pixels that are finished as the processor would."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tunesmith.errors import DataError
from tunesmith.tasks import images

pytestmark = pytest.mark.unit

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_form_of_an_image_is_the_same_image(tmp_path: Path) -> None:
    pixels = noise()
    raw = saved(Image.fromarray(pixels))
    (tmp_path / "a.png").write_bytes(raw)
    forms = [raw, bytearray(raw), memoryview(raw), str(tmp_path / "a.png"), tmp_path / "a.png", (tmp_path / "a.png").as_uri()]
    forms += [pixels, Image.fromarray(pixels), {"bytes": raw, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    for form in forms:
        opened = images.open_image(form)
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), pixels)


def test_a_photograph_is_turned_upright() -> None:
    image = Image.new("RGB", (4, 2), BLUE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90°
    turned = images.open_image(saved(image, exif=exif))
    assert turned.size == (2, 4)
    assert turned.getpixel((1, 0)) == RED


def test_palettes_and_transparency_become_plain_colours() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    for form in (
        saved(palette),
        saved(palette, transparency=bytes([0, 255])),
        saved(palette, transparency=1),
        saved(image, "GIF"),
    ):
        opened = images.open_image(form)
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [RED, BLUE]
    clear = image.convert("RGBA")
    clear.putalpha(128)
    assert images.open_image(saved(clear)).getpixel((0, 0)) == RED


def test_greyscale_keeps_its_greys_in_8_and_in_16_bits() -> None:
    greys = np.array([[0, 64, 128, 255]], dtype=np.uint8)
    deep = (greys.astype(np.uint16) << 8) + 7
    for image in (
        Image.fromarray(greys),
        Image.fromarray(deep),
        Image.fromarray(greys.astype(np.int32)),
        Image.fromarray(greys > 99),
    ):
        wanted = np.where(greys > 99, 255, 0) if image.mode == "1" else greys
        for form in (image, saved(image, "TIFF")):
            opened = np.asarray(images.open_image(form))
            assert opened.shape == (1, 4, 3)
            np.testing.assert_array_equal(opened, np.repeat(wanted[:, :, None], 3, axis=2), err_msg=image.mode)
    np.testing.assert_array_equal(np.asarray(images.open_image(saved(Image.fromarray(deep))))[..., 0], greys)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_greys_of_fewer_bits_that_are_kept_in_16_are_not_black(kind: str, bits: int) -> None:
    greys = np.array([[0, 64, 128, 255]], dtype=np.uint8)
    deep = Image.fromarray(greys.astype(np.uint16) << (bits - 8))
    for form in (deep, np.asarray(deep), saved(deep, kind)):
        np.testing.assert_array_equal(np.asarray(images.open_image(form))[..., 0], greys)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("edge", [255, 511, 4095, 16383])
def test_greys_that_are_nearly_alike_differ_by_a_factor_of_two_at_most(edge: int, dtype: type) -> None:
    below, above = (np.asarray(images.open_image(np.array([[0, value]], dtype=dtype))).max() for value in (edge, edge + 1))
    assert (below, above) == (255, 128)


def test_shares_of_white_may_overshoot_a_little() -> None:
    found = np.asarray(images.open_image(np.array([[0.0, 0.5, 1.0, 1.02]], dtype=np.float32)))[..., 0]
    np.testing.assert_array_equal(found, [[0, 128, 255, 255]])


@pytest.mark.parametrize("brightest", [1.0, 255.0, 4095.0, 65535.0])
def test_greys_in_floating_point_are_kept(brightest: float) -> None:
    greys = np.array([[0, 51, 102, 255]], dtype=np.uint8)
    exact = (greys / 255 * brightest).astype(np.float32)
    for form in (exact, exact.astype(np.float64), saved(Image.fromarray(exact), "TIFF")):
        np.testing.assert_array_equal(np.asarray(images.open_image(form))[..., 0], greys)
    beside = np.array([[np.nan, -np.inf, -1e30, brightest]], dtype=np.float32)
    np.testing.assert_array_equal(np.asarray(images.open_image(beside))[..., 0], [[0, 0, 0, 255]])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_file_that_was_cut_short_is_unreadable(kind: str, share: float) -> None:
    raw = saved(Image.fromarray(noise(40, 40)), kind)
    with pytest.raises(DataError, match=r"^image is unreadable: "):
        images.open_image(raw[: int(len(raw) * share)])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"label,image\n", "unreadable: not a known image format"),
        (None, "missing"),
        ({"bytes": None, "path": None}, "missing"),
        ({}, "missing"),
        (7, "int, not a path, bytes or an image"),
        ("/nowhere/cat.png", r"not there: /nowhere/cat\.png"),
        (np.zeros((2, 2, 7), np.uint8), "unreadable"),
    ],
)
def test_what_is_no_image_says_so(value: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"^image is {said}"):
        images.open_image(value)


def test_empty_and_text_files_and_folders_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    for name, said in (("empty.png", "empty"), ("text.png", "unreadable: not a known image format"), ("", "unreadable")):
        with pytest.raises(DataError, match=f"^image is {said}"):
            images.open_image(tmp_path / name)


def png_of(width: int, height: int) -> bytes:
    """A valid PNG header with next to nothing behind it: a decompression bomb's first bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 60_000])
def test_images_of_huge_dimensions_are_refused_unopened(side: int) -> None:
    with pytest.raises(DataError, match="pixels"):
        images.open_image(png_of(side, side))


def vit(**changes: Any) -> Any:
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": 8, "width": 8}, **changes)


def convnext(**changes: Any) -> Any:
    from transformers import ConvNextImageProcessorPil

    return ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.8, **changes)


class Greyish:
    """A processor that scales by the brightest pixel: nothing that can be finished later."""

    def __call__(self, images: list[Any], return_tensors: str) -> dict[str, np.ndarray]:
        pixels = np.stack([np.asarray(image)[:8, :8].transpose(2, 0, 1) / np.asarray(image).max() for image in images])
        return {"pixel_values": pixels.astype(np.float32)}


class Contrast:
    """A processor that takes the usual switches and does something of its own besides."""

    rescale_factor, do_rescale, do_normalize = 1 / 255, True, False

    def __call__(self, images: list[Any], return_tensors: str, do_rescale: bool = True, do_normalize: bool = False) -> Any:
        pixels = np.stack([np.asarray(image)[:8, :8].transpose(2, 0, 1) for image in images])
        return {"pixel_values": (pixels / 255.0) ** 2 if do_rescale else pixels}


@pytest.mark.parametrize(
    ("processor", "stored"),
    [
        (vit(), "uint8"),
        (vit(do_normalize=False), "uint8"),
        (vit(do_rescale=False, do_normalize=False), "uint8"),
        (vit(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 1.0, 2.0], rescale_factor=1 / 127), "uint8"),
        (convnext(), "uint8"),
        (Greyish(), "float32"),
        (Contrast(), "float32"),
    ],
    ids=["vit", "no-norm", "raw", "odd-norm", "convnext", "greyish", "contrast"],
)
def test_finished_pixels_are_those_of_the_processor(processor: Any, stored: str) -> None:
    state = images.freeze(processor)
    assert state["pixels"] == stored
    given = [Image.fromarray(noise(30, 20, seed)) for seed in range(3)]
    pixels = images.encode(given, processor, state)
    assert {str(one.dtype) for one in pixels} == {stored}
    wanted = np.asarray(processor(images=given, return_tensors="np")["pixel_values"], dtype=np.float32)
    finished = images.batch(pixels, state)
    assert str(finished.dtype) == "torch.float32"
    np.testing.assert_allclose(finished.numpy(), wanted, atol=1e-5, rtol=1e-5)
