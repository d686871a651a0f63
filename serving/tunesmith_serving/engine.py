"""One model that answers: its predictor, its batches, its limits. A Serve replica holds one; so do tests, without Ray."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from tunesmith.errors import DataError
from tunesmith.evaluation.predictor import TOKENS_PER_BATCH, Predictor
from tunesmith.recipe.serving import ServingSection
from tunesmith.tasks.base import Example, Features
from tunesmith_serving.backends import with_backend
from tunesmith_serving.batcher import Batcher, Limits
from tunesmith_serving.describe import Description, describe
from tunesmith_serving.lanes import first_thread, lanes, take_one_core
from tunesmith_serving.reply import Answered

PACKED_TOKENS = 512
"""Tokens of a pass without padding, on a CPU. More are hardly cheaper (``docs/benchmarks.md``), and while these are computed
the answers of the pass before are on their way."""

MOST_PIXELS = 2_000_000_000
"""Of all images of a request together, width × height: they are decoded a few at a time, so that this bounds the time alone."""

PROGRAMS = ("EPS",)
"""Formats that Pillow hands to another program (Ghostscript), which is not for what strangers send."""


class Engine:
    """A loaded and warmed-up model behind a batcher. Lives in one event loop."""

    def __init__(
        self, predictor: Predictor, name: str, version: str, settings: ServingSection, thread: ThreadPoolExecutor | None = None
    ) -> None:
        """Put the settings' backend in place and warm the model up, so that the first request is as fast as the second.

        Args:
            predictor: the model.
            name: what it is called.
            version: which of several.
            settings: how it answers.
            thread: the first lane's, in which this is called then (:mod:`tunesmith_serving.lanes`); a new one where not said.

        Raises:
            ModelError: the backend cannot answer in place of PyTorch.
        """
        predictor = with_backend(predictor, settings)
        self.predictor, self.settings = predictor, settings
        self.padding_is_harmless = predictor.padding_is_harmless  # the passes that find it out warm the model up
        self.description: Description = describe(
            predictor.task,
            predictor.preprocessing.state,
            name,
            version,
            padding_is_harmless=self.padding_is_harmless,
            backend=settings.backend,
        )
        self._encoders = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), "encode", take_one_core)
        self._lanes = lanes(thread or first_thread(), torch.get_num_threads(), several=self._may_share())
        self.batcher = Batcher(predictor.forward, self._limits(), self._lanes)

    @classmethod
    def load(
        cls, folder: str, name: str, version: str = "1", settings: ServingSection | None = None, threads: int | None = None
    ) -> Engine:
        """The artefact of a run. ``threads`` are the CPU threads of a pass. Raises :class:`ModelError`."""
        thread = first_thread()

        def begin() -> Engine:
            if threads:
                torch.set_num_threads(threads)
            return cls(Predictor.load(folder), name, version, settings or ServingSection(), thread)

        try:
            return thread.submit(begin).result()
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def answer(self, examples: Sequence[Example], timeout: float | None = None) -> Answered:
        """What the model says of each example. Raises :class:`TimeoutError`; a bad example is told in the answer."""
        loop = asyncio.get_running_loop()
        timeout = self.settings.timeout_s if timeout is None else timeout
        start = loop.time()
        until = time.monotonic() + timeout
        encoded = await asyncio.wait_for(loop.run_in_executor(self._encoders, self._encode, examples, until), timeout)
        if isinstance(encoded, Answered):
            return encoded
        answers, passes = await self.batcher.answer(encoded, timeout - (loop.time() - start))
        waited = max((wait for one in passes for wait in one.waited), default=0.0)
        return Answered(answers, passes=[(one.size, one.seconds) for one in passes], waited=waited)

    async def ready(self) -> bool:
        """True: it is loaded and warm, or it would not be here."""
        return True

    async def close(self) -> None:
        """Let go of the threads."""
        await self.batcher.close()
        for lane in self._lanes:
            lane.executor.shutdown(wait=False, cancel_futures=True)
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _may_share(self) -> bool:
        """Whether several passes may be computed at a time: OpenVINO's request and a GPU take one after the other."""
        return self.predictor.device.type == "cpu" and self.settings.backend == "torch"

    def _limits(self) -> Limits:
        settings, task = self.settings, self.predictor.task
        packed = self.predictor.packing is not None and self.padding_is_harmless
        usual = PACKED_TOKENS if packed else TOKENS_PER_BATCH.get(self.predictor.device.type, TOKENS_PER_BATCH["cpu"])
        tokens = settings.max_batch_tokens or usual
        return Limits(
            budget=tokens if task.ragged else settings.max_batch_size,
            most=settings.max_batch_size,
            beside=self.predictor.beside,
            wait=settings.batch_wait_ms / 1000,
            equal_lengths=task.ragged and not self.padding_is_harmless,
            packed=packed,
        )

    def _encode(self, examples: Sequence[Example], until: float) -> list[Features] | Answered:
        """The examples as tensors' makings, or a problem. All images' headers are read before one of them is decoded.

        Raises :class:`TimeoutError` where nobody waits any more: after ``until``, on ``time.monotonic()``.
        """
        most = self.settings.max_image_pixels
        sizes, total, together = [0] * len(examples), 0, max(MOST_PIXELS, most)
        for index, example in enumerate(examples):
            try:
                sizes[index] = pixels(example, self.predictor.task.columns, most)
            except DataError as error:
                return Answered(problem=(index, str(error)))
            total += sizes[index]
            if total > together:
                return Answered(problem=(None, f"have images of more than {together:,} pixels together: send several requests"))
        found: list[Features] = []
        for piece in pieces(sizes, most):
            if time.monotonic() > until:
                raise TimeoutError("nobody waits for the rest")
            encoded = self._encode_piece(examples, sizes, piece)
            if isinstance(encoded, Answered):
                return encoded
            found += encoded
        return found

    def _encode_piece(self, examples: Sequence[Example], sizes: Sequence[int], piece: range) -> list[Features] | Answered:
        """As many of the examples as are decoded at a time, or the problem of one."""
        task, preprocessing = self.predictor.task, self.predictor.preprocessing
        usable = []
        for index in piece:
            try:
                opened = opened_images(examples[index], task.columns, sizes[index])
                why = task.check(opened)
            except DataError as error:
                why = str(error)
            if why:
                return Answered(problem=(index, why))
            usable.append(opened)
        try:
            return task.encode(usable, preprocessing)
        except DataError:  # it does not say of which one
            found: list[Features] = []
        for index, one in zip(piece, usable, strict=True):
            try:
                found += task.encode([one], preprocessing)
            except DataError as error:
                return Answered(problem=(index, str(error)))
        return found


def pieces(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Neighbours that have at most so many pixels together, or are alone.

    >>> list(pieces([3, 4, 9, 0, 1], most=8))
    [range(0, 2), range(2, 3), range(3, 5)]
    """
    start = held = 0
    for index, size in enumerate(sizes):
        if index > start and held + size > most:
            yield range(start, index)
            start, held = index, 0
        held += size
    yield range(start, len(sizes))


def pixels(example: Example, columns: Mapping[str, Any], most: int) -> int:
    """Width × height of the example's images, as their headers say. Raises :class:`DataError` where that is not taken."""
    from PIL import Image

    total = 0
    for value in _images(example, columns).values():
        try:
            with Image.open(io.BytesIO(value)) as header:
                (width, height), kind = header.size, header.format
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"image has more pixels than the {most:,} taken here") from error
        except MemoryError:
            raise
        except Exception:  # Pillow raises many kinds for damaged files, and open_image says what is wrong
            width, height, kind = 0, 0, None
        if kind in PROGRAMS:
            raise DataError(f"image is {kind}, a program that is run to draw it: send PNG or JPEG")
        if width * height > most:
            raise DataError(f"image has {width}×{height} pixels, more than the {most:,} taken here")
        total += width * height
    return total


def opened_images(example: Example, columns: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The example with its images decoded, once; ``size`` are the pixels of their headers. Raises :class:`DataError`."""
    from tunesmith.tasks.images import open_image

    opened = {role: open_image(value) for role, value in _images(example, columns).items()}
    if sum(one.width * one.height for one in opened.values()) > size:
        raise DataError("image is unreadable: it has more pixels than its header says")
    return {**example, **opened}


def _images(example: Example, columns: Mapping[str, Any]) -> dict[str, bytes]:
    """The example's images that are not decoded."""
    return {
        role: value
        for role, value in example.items()
        if role in columns and columns[role].kind == "image" and isinstance(value, bytes)
    }
