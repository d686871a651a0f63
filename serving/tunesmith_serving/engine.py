"""One model that answers: its predictor, its batches, its limits. A Serve replica holds one; so do tests, without Ray."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Mapping, Sequence
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
        encoded = await asyncio.wait_for(loop.run_in_executor(self._encoders, self._encode, examples), timeout)
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

    def _encode(self, examples: Sequence[Example]) -> list[Features] | Answered:
        """The examples as tensors' makings, or the first one's problem."""
        task = self.predictor.task
        usable = []
        for index, example in enumerate(examples):
            try:
                opened = opened_images(example, task.columns, self.settings.max_image_pixels)
                why = task.check(opened)
            except DataError as error:
                why = str(error)
            if why:
                return Answered(problem=(index, why))
            usable.append(opened)
        try:
            return task.encode(usable, self.predictor.preprocessing)
        except DataError as error:
            return Answered(problem=(0, str(error)))


def opened_images(example: Example, columns: Mapping[str, Any], most_pixels: int) -> dict[str, Any]:
    """The example with its images decoded, once; their size is looked at before that. Raises :class:`DataError`."""
    from PIL import Image, UnidentifiedImageError

    from tunesmith.tasks.images import open_image

    opened = dict(example)
    for role, value in example.items():
        if role not in columns or columns[role].kind != "image" or not isinstance(value, bytes):
            continue
        try:
            with Image.open(io.BytesIO(value)) as header:
                width, height = header.size
                if header.format in PROGRAMS:
                    raise DataError(f"image is {header.format}, a program that is run to draw it: send PNG or JPEG")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"image has more pixels than the {most_pixels:,} taken here") from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            width = height = 0  # open_image says what is wrong
        if width * height > most_pixels:
            raise DataError(f"image has {width}×{height} pixels, more than the {most_pixels:,} taken here")
        opened[role] = open_image(value)
    return opened
