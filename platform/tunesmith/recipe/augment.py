"""``data.augment:``: what is changed at random in the training examples, one small named operation after another.

Every operation is its own section, told apart by ``name``; which task takes which stands in
:mod:`tunesmith.recipe.task_names`. The operations themselves are in :mod:`tunesmith.tasks.augment`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tunesmith.recipe.base import Section

Range = Annotated[list[float], Field(min_length=2, max_length=2)]
"""The lowest and the highest value."""


class Operation(Section):
    """What every operation has."""

    p: float = Field(default=0.5, ge=0, le=1)
    """Chance that an example is changed, drawn anew in each epoch."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, value in self:
            if isinstance(value, list) and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{name} is {value}, not two numbers from low to high, none below 0")
        return self


class Rotation(Operation):
    """Turns the image about its centre."""

    name: Literal["rotation"]
    degrees: float = Field(default=15.0, gt=0, le=180)
    """The angle is drawn between minus and plus so many degrees, counter-clockwise."""
    fill: float = Field(default=0.0, ge=0, le=1)
    """Brightness of the corners that are uncovered: 0 is black, 1 white."""


class HorizontalFlip(Operation):
    """Mirrors the image left to right."""

    name: Literal["hflip"]


class VerticalFlip(Operation):
    """Mirrors the image top to bottom."""

    name: Literal["vflip"]


class Crop(Operation):
    """Cuts out a part and enlarges it to the full size (random resized crop)."""

    name: Literal["crop"]
    p: float = Field(default=1.0, ge=0, le=1)
    """Chance that an example is changed, drawn anew in each epoch."""
    scale: Range = Field(default=[0.5, 1.0])
    """The part's share of the area, from lowest to highest; at most 1."""
    ratio: Range = Field(default=[0.75, 1.3333])
    """Width over height of the part, relative to the image's own, from lowest to highest."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        _check_shape(self.scale, self.ratio)
        return self


class ColorJitter(Operation):
    """Changes brightness, contrast, saturation and hue."""

    name: Literal["color_jitter"]
    brightness: float = Field(default=0.2, ge=0, le=1)
    """The factor is drawn between 1 minus and 1 plus this."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """The factor is drawn between 1 minus and 1 plus this."""
    saturation: float = Field(default=0.2, ge=0, le=1)
    """The factor is drawn between 1 minus and 1 plus this."""
    hue: float = Field(default=0.02, ge=0, le=0.5)
    """The shift is drawn between minus and plus this share of the colour circle."""


class Noise(Operation):
    """Adds Gaussian noise to every pixel and channel."""

    name: Literal["noise"]
    std: float = Field(default=0.05, gt=0, le=1)
    """Standard deviation, where 1 is the step from black to white."""


class Blur(Operation):
    """Blurs with a Gaussian."""

    name: Literal["blur"]
    sigma: Range = Field(default=[0.1, 2.0])
    """Standard deviation in pixels, from lowest to highest."""


class Erasing(Operation):
    """Paints a rectangle over (Zhong et al. 2020, arXiv:1708.04896)."""

    name: Literal["erasing"]
    scale: Range = Field(default=[0.02, 0.33])
    """The rectangle's share of the area, from lowest to highest; at most 1."""
    ratio: Range = Field(default=[0.3, 3.3])
    """Height over width of the rectangle, from lowest to highest."""
    value: float = Field(default=0.0, ge=0, le=1)
    """Its brightness: 0 is black, 1 white."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        _check_shape(self.scale, self.ratio)
        return self


class RandAugment(Operation):
    """A few operations out of fourteen, all of one strength (Cubuk et al. 2020, arXiv:1909.13719)."""

    name: Literal["randaugment"]
    p: float = Field(default=1.0, ge=0, le=1)
    """Chance that an example is changed, drawn anew in each epoch."""
    num_ops: int = Field(default=2, ge=1, le=14)
    """How many are applied to an example, one after another (the paper's N)."""
    magnitude: int = Field(default=9, ge=0, le=30)
    """Their strength, from 0 to 30 (the paper's M)."""


class MixUp(Operation):
    """Blends the image with another training image; the loss asks for both labels (Zhang et al. 2018, arXiv:1710.09412)."""

    name: Literal["mixup"]
    p: float = Field(default=1.0, ge=0, le=1)
    """Chance that an example is changed, drawn anew in each epoch."""
    alpha: float = Field(default=0.2, gt=0)
    """The own share is drawn from Beta(alpha, alpha)."""


class CutMix(Operation):
    """Puts a rectangle of another training image in; labels count by area (Yun et al. 2019, arXiv:1905.04899)."""

    name: Literal["cutmix"]
    p: float = Field(default=1.0, ge=0, le=1)
    """Chance that an example is changed, drawn anew in each epoch."""
    alpha: float = Field(default=1.0, gt=0)
    """The own share is drawn from Beta(alpha, alpha)."""


class WordDropout(Operation):
    """Leaves words out (random deletion of Wei and Zou 2019, arXiv:1901.11196); at least one stays."""

    name: Literal["word_dropout"]
    rate: float = Field(default=0.1, gt=0, lt=1)
    """Chance of each word to be left out."""


class WordSwap(Operation):
    """Swaps words with their neighbours."""

    name: Literal["word_swap"]
    rate: float = Field(default=0.1, gt=0, le=1)
    """Chance of each word to change places with the next; no word moves twice."""


class Typos(Operation):
    """Mistypes words: a neighbouring key, a letter left out, doubled, or swapped with the next."""

    name: Literal["typos"]
    rate: float = Field(default=0.05, gt=0, le=1)
    """Chance of each word to get one mistake."""


class MaskedLM(Operation):
    """Puts words that a masked language model proposes in place of others (Garg and Ramakrishnan 2020, arXiv:2004.01970).

    The words of an example that are to go are masked together, and each is filled by one of the model's likeliest whole words.
    It does not know the label and may turn a sentence's sense round (Wu et al. 2019, arXiv:1812.06705): look at the samples.
    """

    name: Literal["mlm"]
    model_name_or_path: str
    """A model with a masked-LM head: a Hub id (``distilbert/distilroberta-base``), a folder (relative to the recipe's file) or
    any URI."""
    revision: str = "main"
    """Branch, tag or commit of a Hub id."""
    rate: float = Field(default=0.15, gt=0, le=1)
    """Chance of each word to be replaced."""
    top_k: int = Field(default=10, ge=1, le=1000)
    """Each is replaced by one of so many likeliest words, all with the same chance; the word itself is not among them."""


def _name(operation: Any) -> Any:
    return operation.get("name") if isinstance(operation, dict) else getattr(operation, "name", None)


AnyOperation = Annotated[
    Annotated[Rotation, Tag("rotation")]
    | Annotated[HorizontalFlip, Tag("hflip")]
    | Annotated[VerticalFlip, Tag("vflip")]
    | Annotated[Crop, Tag("crop")]
    | Annotated[ColorJitter, Tag("color_jitter")]
    | Annotated[Noise, Tag("noise")]
    | Annotated[Blur, Tag("blur")]
    | Annotated[Erasing, Tag("erasing")]
    | Annotated[RandAugment, Tag("randaugment")]
    | Annotated[MixUp, Tag("mixup")]
    | Annotated[CutMix, Tag("cutmix")]
    | Annotated[WordDropout, Tag("word_dropout")]
    | Annotated[WordSwap, Tag("word_swap")]
    | Annotated[Typos, Tag("typos")]
    | Annotated[MaskedLM, Tag("mlm")],
    Discriminator(_name),  # a function: pydantic refuses the name of a field that is validated before, as every key here is
]

IMAGES = (
    "rotation",
    "hflip",
    "vflip",
    "crop",
    "color_jitter",
    "noise",
    "blur",
    "erasing",
    "randaugment",
    "mixup",
    "cutmix",
)
"""What images with one class each can take."""

MIXING = ("mixup", "cutmix")
"""Those that join two examples. An example goes through one of them at most."""

TEXTS = ("word_dropout", "word_swap", "typos", "mlm")
"""What texts with classes can take."""

WORDS = ("word_dropout", "typos")
"""What words with a tag each can take: nothing that parts a word from its tag, breaks an entity's order, or makes the
tag untrue."""


def _check_shape(scale: list[float], ratio: list[float]) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is {scale}, not two shares of the area above 0 and at most 1, from low to high")
    if ratio[0] <= 0:
        raise ValueError(f"ratio is {ratio}, not two numbers above 0")
