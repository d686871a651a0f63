"""What all tasks over images share: opening them in any of their forms, resizing once, normalising in the batch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith import storage
from tunesmith.errors import DataError, UserError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

LARGEST_PIXELS = 100_000_000
"""Images beyond this many pixels are refused: a small file can unpack to gigabytes (a decompression bomb)."""


def open_image(value: Any) -> Image:
    """An image as RGB, upright: from a path or URI, bytes, ``{"bytes": …, "path": …}``, an array, or a PIL image.

    Raises :class:`DataError` where it cannot be read.
    """
    from PIL import ImageOps, UnidentifiedImageError

    try:
        image = _open(value)
        if image.width * image.height > LARGEST_PIXELS:
            raise DataError(f"image has {image.width}×{image.height} pixels, more than {LARGEST_PIXELS:,}")
        return _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError("image is unreadable: not a known image format") from error
    except FileNotFoundError as error:
        raise DataError(f"image is not there: {error.filename or value}") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise DataError(f"image is unreadable: {str(error) or type(error).__name__}") from error


def _open(value: Any) -> Image:
    from PIL import Image as images

    if isinstance(value, images.Image):
        return value
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise DataError("image is missing")
    if isinstance(value, np.ndarray):
        return images.fromarray(value)
    if isinstance(value, str | Path):
        # read whole: an image opened by its path keeps the file open where it turns out to be corrupt
        value = storage.local_path(value).read_bytes() if storage.is_local(value) else storage.read_bytes(value)
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) == 0:
            raise DataError("image is empty (0 bytes)")
        return images.open(io.BytesIO(value))
    raise DataError(f"image is {type(value).__name__}, not a path, bytes or an image")


OVERSHOT = 2.0
"""Up to which a greyscale in floating point is one from 0 to 1: one of other numbers would be all but black."""


def _eight_bits(image: Image) -> Image:
    """A greyscale of 16 or 32 bits, or of floating point, brought to 8 bits; Pillow makes it white above 255, black below 1.

    How deep it is, the bits of its brightest pixel tell: many cameras and scanners keep 8, 12 or 14 bits in 16. Two images that
    are nearly alike thus differ by a factor of two at most. Floating point up to 1 is a share of white; interpolation may
    overshoot that.
    """
    from PIL import Image as images

    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        values = values.clip(0, 1) * 255 if values.max(initial=0) <= OVERSHOT else values
        values = values.clip(0, 1 << 31)
    shift = max(0, int(values.max(initial=0)).bit_length() - 8)
    values = values if values.dtype.kind in "iu" else values.round().astype(np.int64)
    return images.fromarray((values >> shift).clip(0, 255).astype(np.uint8))


def freeze(processor: Any) -> dict[str, Any]:
    """How this processor's pixels are stored and finished; found by trying it on one image.

    ``uint8`` pixels are a quarter of the size of finished ones, and are finished in the batch (scaled and normalised) exactly
    as the processor would. A processor that does anything else keeps its finished ``float32`` pixels.
    """
    sample = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    whole = np.asarray(processor(images=[sample], return_tensors="np")["pixel_values"])[0]
    try:
        raw = np.asarray(processor(images=[sample], do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"])[
            0
        ]
    except (TypeError, ValueError):
        return {"pixels": "float32"}
    finish = {
        "pixels": "uint8",
        "scale": float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 1.0,
        "mean": [float(m) for m in processor.image_mean] if getattr(processor, "do_normalize", False) else None,
        "std": [float(s) for s in processor.image_std] if getattr(processor, "do_normalize", False) else None,
    }
    same = (
        raw.dtype == np.uint8
        and raw.shape == whole.shape
        and np.allclose(_finish(raw[None], finish).numpy()[0], whole, atol=1e-5)
    )
    return finish if same else {"pixels": "float32"}


def encode(values: Sequence[Any], processor: Any, state: Mapping[str, Any]) -> list[np.ndarray]:
    """Decoded and resized pixels, ``[channels, height, width]`` each."""
    plain = {"do_rescale": False, "do_normalize": False} if state["pixels"] == "uint8" else {}
    pixels = processor(images=[open_image(value) for value in values], return_tensors="np", **plain)["pixel_values"]
    return [np.ascontiguousarray(one, dtype=state["pixels"]) for one in pixels]


def batch(pixels: Sequence[np.ndarray], state: Mapping[str, Any]) -> torch.Tensor:
    """Finished pixels, float32 ``[batch, channels, height, width]``."""
    return _finish(np.stack(pixels), state)


def finish(images: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor:
    """Finished pixels from images in [0, 1], float32 ``[batch, channels, height, width]``, changed in place."""
    return _normalised(images.mul_(255), state)


def _finish(pixels: np.ndarray, state: Mapping[str, Any]) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(pixels).to(torch.float32)
    return tensor if state["pixels"] == "float32" else _normalised(tensor, state)


def _normalised(tensor: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor:
    import torch

    tensor = tensor.mul_(state["scale"])
    if state["mean"] is not None:
        mean, std = (torch.tensor(state[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
        tensor = tensor.sub_(mean).div_(std)
    return tensor
