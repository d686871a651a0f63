"""What each remedy keeps of the old task and what it costs of the new one, on the digits of the example.

The base reads clean digits; it is fine-tuned on another scanner's. Every way starts from a recipe and changes what its line
says. ``init`` is the recipe that ``tunesmith init image-classification --data … --model …`` writes, untouched but for the
test rows; ``example`` the example's own. All ways see the same test rows: 360 scans, and the same 360 digits clean. The bar:
the best way loses at most a third of the old accuracy that the recipe as it is loses, at no more than 2 points of the new
one.

Values are means over the seeds. Their intervals, and those of the differences, which are paired by row and seed, take rows and
seeds as two crossed samples (:func:`crossed`).

    python tests/benchmarks/bench_forgetting.py [--seeds 5] [--recipes init example] [--ways plain "replay 0.2"]
        [--cache FILE]      what is trained already is taken from there, and what is trained is added
        [--picture FILE]    the trade-off as an SVG
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith import storage
from tunesmith.data.old import OldPlaces, prepare_old
from tunesmith.data.prepare import prepare
from tunesmith.data.prepared import Split
from tunesmith.evaluation.predictor import Predictor
from tunesmith.evaluation.statistics import Estimate
from tunesmith.recipe import Recipe
from tunesmith.report import choices
from tunesmith.report.page import resource
from tunesmith.tasks import load_task
from tunesmith.tasks.base import Preprocessing
from tunesmith.training.finish import finish
from tunesmith.training.fit import FitContext, FitData, FitSpec, fit
from tunesmith.verbs.init import command as init

DIGITS = Path(__file__).parents[2] / "examples" / "digits"

SHARE, COST = 1 / 3, 0.02
"""The bar: what may be lost of the old, as a share of what the recipe as it is loses, and of the new."""

RECIPES = ("init", "example")
PLAIN = "plain"
Rights = npt.NDArray[np.float64]
"""Whether each answer is right, ``[seeds, rows]``: 0 or 1."""


@dataclass(frozen=True)
class Way:
    """One way of training, as a line of the table."""

    family: str
    strength: str = ""
    changes: tuple[str, ...] = ()
    old_data: bool = False
    """Whether it needs data of the old task."""

    @property
    def name(self) -> str:
        """As it is called in the table."""
        return f"{self.family} {self.strength}".strip()


def ways(recipe: Recipe) -> list[Way]:
    """The recipe as it is, every remedy at several strengths, and remedies together."""
    rate, epochs = recipe.training.learning_rate, recipe.training.num_train_epochs
    old = "training.replay.data=OLD"
    found = [Way(PLAIN)]
    found += [Way("replay", share, (old, f"training.replay.share={share}"), True) for share in ("0.05", "0.1", "0.2", "0.5")]
    found += [Way("wise_ft", alpha, (f"training.wise_ft={alpha}",)) for alpha in ("0.75", "0.5", "0.25")]
    found += [Way("l2_sp", pull, (f"training.l2_sp={pull}",)) for pull in ("0.01", "0.1", "1")]
    found += [Way("learning_rate", f"÷{by}", (f"training.learning_rate={rate / by:.8f}",)) for by in (3, 10)]
    found += [Way("layerwise_lr_decay", decay, (f"training.layerwise_lr_decay={decay}",)) for decay in ("0.7", "0.4")]
    found += [
        Way("unfreeze", f"{epochs / parts:.3g}", (f"training.unfreeze.every_epochs={epochs / parts:.3g}",)) for parts in (16, 5)
    ]
    found += [Way("ema_decay", decay, (f"training.ema_decay={decay}",)) for decay in ("0.99", "0.999")]
    lora = ("training.adaptation=lora", "training.lora.target_modules=[convolution]")
    found += [Way("lora", f"r={rank}", (*lora, f"training.lora.r={rank}")) for rank in (4, 16)]
    found += [Way(name, "", (f"training.adaptation={name}",)) for name in ("bitfit", "linear-probe")]
    replay = (old, "training.replay.share=0.2")
    found += [
        Way("replay 0.2 + ema_decay 0.99", "", (*replay, "training.ema_decay=0.99"), True),
        Way("replay 0.2 + wise_ft 0.75", "", (*replay, "training.wise_ft=0.75"), True),
        Way("replay 0.2 + l2_sp 0.01", "", (*replay, "training.l2_sp=0.01"), True),
        Way("l2_sp 0.1 + wise_ft 0.75", "", ("training.l2_sp=0.1", "training.wise_ft=0.75")),
        Way("l2_sp 0.1 + ema_decay 0.99", "", ("training.l2_sp=0.1", "training.ema_decay=0.99")),
    ]
    return found


def recipes(folder: Path, data: Path) -> dict[str, Recipe]:
    """The recipes to begin from. Two workers of the example are two micro-batches here: the same examples in each update."""
    written = folder / "init.yaml"
    arguments = ["image-classification", "--data", str(data / "train"), "--model", str(DIGITS / "base"), "--out", str(written)]
    init.main(arguments, standalone_mode=False)
    shared = (f"data.test={data / 'test'}", f"training.output_dir={folder}", "training.use_gpu=false", "training.num_workers=1")
    example = (f"data.train={data / 'train'}", "evaluation.retention.data=null", "training.gradient_accumulation_steps=2")
    return {
        "init": Recipe.load(written, shared),
        "example": Recipe.load(DIGITS / "recipe.yaml", (*shared, *example)),
    }


class Bench:
    """The prepared data, and the ways trained on it."""

    def __init__(self, recipe: Recipe, data: Path, folder: Path) -> None:
        self.recipe, self.task, self._data, self._folder = recipe, load_task(recipe.task), data, folder
        self._place = recipe.training.output_dir
        self._prepared = prepare(recipe, self.task, output_dir=self._place)
        beside = recipe.override(f"training.replay.data={data / 'old'}", f"evaluation.retention.data={data / 'clean'}")
        self._old = prepare_old(beside, self.task, self._prepared)
        self._trained: dict[tuple[int, tuple[str, ...]], tuple[Path, float]] = {}

    def base(self) -> dict[str, str]:
        """The base itself on both test sets."""
        base = Predictor.load_base(self.recipe, self.task, self._prepared.state, device="cpu")
        assert base is not None, "the base answers with the digits itself"
        return self._judged(base)

    def score(self, way: Way, seed: int) -> dict[str, Any]:
        """Which test rows of either task the way answers rightly after training, and the seconds of training."""
        changes = tuple(change.replace("OLD", str(self._data / "old")) for change in way.changes)
        recipe = self.recipe.override(f"training.seed={seed}", *changes)
        training = tuple(change for change in changes if not change.startswith("training.wise_ft"))
        if (seed, training) not in self._trained:
            self._trained[seed, training] = self._train(self.recipe.override(f"training.seed={seed}", *training), way.old_data)
        trained, seconds = self._trained[seed, training]
        with tempfile.TemporaryDirectory() as name:
            kept = shutil.copytree(trained, Path(name, "model"))
            finish(recipe, self.task, self._prepared, OldPlaces(), kept, {})
            model = self.task.load_model(str(kept))
        return {**self._judged(Predictor(self.task, model, self._preprocessing(recipe), device="cpu")), "seconds": seconds}

    def _train(self, recipe: Recipe, replays: bool) -> tuple[Path, float]:
        """The chosen checkpoint's model, as ``tunesmith train`` chooses it, and the seconds that training took."""
        kept, best = Path(tempfile.mkdtemp(dir=self._folder)), -math.inf

        def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
            nonlocal best
            if checkpoint is not None and metrics.get("score", -math.inf) > best:
                best = metrics["score"]
                shutil.copytree(checkpoint / "model", kept, dirs_exist_ok=True)

        assert self._old.replay is not None
        replay = self._old.replay.open() if replays else None
        splits = self._prepared.splits
        begun = time.perf_counter()
        spec = FitSpec(recipe, self.task, self._preprocessing(recipe))
        fit(spec, FitData(splits["train"], splits["validation"], replay), FitContext(report=report))
        return kept, time.perf_counter() - begun

    def _preprocessing(self, recipe: Recipe) -> Preprocessing:
        return Preprocessing(self._prepared.state, self.task.load_processor(recipe))

    def _judged(self, predictor: Predictor) -> dict[str, str]:
        old = self._old.retention["clean"].open()
        return {"new": rights(predictor, self._prepared.splits["test"]), "old": rights(predictor, old)}


def rights(predictor: Predictor, split: Split) -> str:
    """Whether each answer is right, in the split's order: 0 or 1."""
    found = np.zeros(len(split), dtype=int)
    for indices, answers in predictor.predict_split(split):
        for index, answer, example in zip(indices, answers, split.examples(indices), strict=True):
            found[index] = predictor.task.score(answer, example, predictor.preprocessing.state)["correct"]
    return "".join(map(str, found))


def crossed(values: Rights, confidence: float = 0.95) -> Estimate:
    """The mean of ``[seeds, rows]`` with its interval, where both seeds and rows are samples of all that could have been drawn.

    The variance of the mean under crossed random effects (Cornfield and Tukey 1956): that of the seeds' means and that of the
    rows' means, less what is in both; the degrees of freedom are Satterthwaite's (1946).

    >>> found = crossed(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]))
    >>> found.value, found.n
    (0.625, 4)
    """
    from scipy import stats

    seeds, rows = values.shape
    mean = float(values.mean())
    if seeds < 2:
        return Estimate(mean, math.nan, math.nan, rows, "none")
    by_seed, by_row = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_row[None, :] + mean
    noise = float((rest**2).sum()) / ((seeds - 1) * (rows - 1)) / (seeds * rows)
    of_seeds, of_rows = float(by_seed.var(ddof=1)) / seeds, float(by_row.var(ddof=1)) / rows
    variance = max(of_seeds + of_rows - noise, of_seeds, of_rows)
    if variance == 0:
        return Estimate(mean, mean, mean, rows, "crossed")
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_rows**2 / (rows - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, rows, "crossed")


@dataclass(frozen=True)
class Line:
    """What a way came to, beside the recipe as it is."""

    way: Way
    new: Estimate
    old: Estimate
    lost: Estimate
    """Of the old accuracy since before training."""
    gained: Estimate
    """Of the new accuracy, beside plain."""
    kept: Estimate
    """Of the old accuracy, beside plain."""
    beyond: Estimate
    """How much more is lost of the old than a third of what plain loses: at most 0 meets the bar."""
    seconds: float

    @property
    def ratio(self) -> float:
        """What is lost of the old, as a share of what plain loses."""
        plain = self.lost.value + self.kept.value
        return self.lost.value / plain if plain > 0 else math.nan

    @property
    def passed(self) -> bool:
        """Whether it meets the bar, by its means."""
        return self.beyond.value <= 0 and self.gained.value >= -COST


def lines(found: Mapping[str, list[dict[str, Any]]], base: Mapping[str, str], all_ways: Sequence[Way]) -> list[Line]:
    """Every way that was trained, against plain."""

    def table(name: str, side: str) -> Rights:
        return np.stack([bits(one[side]) for one in found[name]])

    before, plain_new, plain_old = bits(base["old"])[None, :], table(PLAIN, "new"), table(PLAIN, "old")
    made = []
    for way in (way for way in all_ways if way.name in found):
        new, old = table(way.name, "new"), table(way.name, "old")
        made.append(
            Line(
                way,
                level(new),
                level(old),
                lost=crossed(before - old),
                gained=crossed(new - plain_new),
                kept=crossed(old - plain_old),
                beyond=crossed((before - old) - SHARE * (before - plain_old)),
                seconds=float(np.mean([one["seconds"] for one in found[way.name]])),
            )
        )
    return made


def level(values: Rights) -> Estimate:
    """An accuracy: its interval does not leave the range from 0 to 1."""
    found = crossed(values)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def bits(text: str) -> Rights:
    """A row of zeros and ones as numbers."""
    return np.array(list(text), dtype=np.float64)


def tell(name: str, made: Sequence[Line], base: Mapping[str, str]) -> dict[str, Any]:
    """Print the table and the verdict; returns them as plain data."""
    before = {side: float(bits(base[side]).mean()) for side in ("new", "old")}
    print(f"\n{name}: the base is right on {before['new']:.1%} of the new and {before['old']:.1%} of the old\n")
    titles = ("way", "new", "95 %", "beside plain", "95 %", "old", "95 %", "lost", "of plain's loss", "seconds")
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for one in made:
        beside = (points(one.gained), span(one.gained)) if one.way.family != PLAIN else ("–", "–")
        cells = (one.way.name, f"{one.new.value:.1%}", span(one.new, ".1f"), *beside, f"{one.old.value:.1%}")
        share = "–" if one.way.family == PLAIN or math.isnan(one.ratio) else f"{one.ratio:.2f}"
        print(f"| {' | '.join((*cells, span(one.old, '.1f'), points(one.lost), share, f'{one.seconds:.0f}'))} |")
    best = {key: best_of(made, old_data) for key, old_data in (("with old data", True), ("without", False))}
    for key, one in best.items():
        if one is not None:
            clear = "clearly" if one.beyond.high <= 0 and one.gained.low >= -COST else "by its means"
            verdict = f"{clear} within the bar" if one.passed else "misses the bar"
            print(
                f"best {key}: {one.way.name}, {verdict}: {one.ratio:.2f} of plain's loss ({points(one.beyond)} points beyond a "
                f"third, {span(one.beyond)}), {points(one.gained)} points of the new ({span(one.gained)})"
            )
    return {
        "before": before,
        "ways": {one.way.name: {"new": one.new.value, "old": one.old.value, "ratio": one.ratio} for one in made},
        "best": {key: one.way.name if one is not None else None for key, one in best.items()},
        "passed": any(one.passed for one in made),
    }


def best_of(made: Iterable[Line], old_data: bool) -> Line | None:
    """The way that loses least of the old among those that meet the bar; the nearest to it where none does."""
    protected = [one for one in made if one.way.family != PLAIN and one.way.old_data == old_data]
    passed = [one for one in protected if one.passed]
    if passed:
        return min(passed, key=lambda one: one.lost.value)
    return min(protected, key=lambda one: max(one.beyond.value, 0) + max(-COST - one.gained.value, 0), default=None)


def points(estimate: Estimate) -> str:
    """A difference of accuracies in points."""
    return f"{100 * estimate.value:+.1f}"


def span(estimate: Estimate, form: str = "+.1f") -> str:
    """Its interval in points."""
    return f"{100 * estimate.low:{form}} to {100 * estimate.high:{form}}"


def picture(made: Sequence[Line], base: Mapping[str, str]) -> str:
    """The trade-off as an SVG that stands alone, in the colours of the report."""

    def kind(one: Line) -> str:
        return "base" if one.way.family == PLAIN else "own" if one.passed else "majority"

    rows = [choices.Choice(one.way.name, one.new, one.old, kind(one), one.way.family) for one in made]
    before = {side: float(bits(base[side]).mean()) for side in ("new", "old")}
    start = [Estimate(before[side], before[side], before[side], 1, "none") for side in ("new", "old")]
    drawn = choices.choices(
        "accuracy on the new scanner",
        "accuracy on clean digits",
        "accuracy",
        [choices.Choice("the base", start[0], start[1], "base"), *rows],
    )
    style = resource("report.css")
    colours, figures = style.partition("* {")[0], style.partition("/* figures */")[2].partition(".legend")[0]
    font = "svg { font-family: system-ui, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif; background: var(--panel); }"
    return (
        str(drawn)
        .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
        .replace(">", f"><style>{colours}{font}{figures}</style>", 1)
        + "\n"
    )


def main() -> int:
    """Train every way on every seed that is not in the cache; print tables and JSON. Exits 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--ways", nargs="*", help="names of lines of the table; all if not said")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Any] = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-forgetting-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, DIGITS / "make_data.py", folder / "data"], check=True, stdout=subprocess.DEVNULL)
        for key, recipe in recipes(folder, folder / "data").items():
            if key not in options.recipes:
                continue
            all_ways = [way for way in ways(recipe) if not options.ways or way.name in (PLAIN, *options.ways)]
            found, base = trained(key, Bench(recipe, folder / "data", folder), all_ways, options.seeds, known, options.cache)
            made = lines(found, base, all_ways)
            result[key] = tell(f"the recipe of {key}", made, base)
            if options.picture and key == options.recipes[-1]:
                options.picture.write_text(picture(made, base))
    print(json.dumps(result))
    return int(not all(one["passed"] for one in result.values()))


def trained(
    key: str, bench: Bench, all_ways: Sequence[Way], seeds: int, known: dict[str, Any], cache: Path | None
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """The answers of every way on every seed, and of the base."""
    found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in all_ways}
    first = bench.recipe.training.seed
    for seed in range(first, first + seeds):
        for way in all_ways:
            entry = f"{key} {seed} {way.name} {' '.join(way.changes)}"
            if entry not in known:
                known[entry] = bench.score(way, seed)
                if cache is not None:
                    storage.write_json(cache, known)
                new, old = (bits(known[entry][side]).mean() for side in ("new", "old"))
                print(f"  {key} seed {seed}  {way.name:28s} new {new:.3f}  old {old:.3f}", file=sys.stderr, flush=True)
            found[way.name].append(known[entry])
    return found, bench.base()


if __name__ == "__main__":
    sys.exit(main())
