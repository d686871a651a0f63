"""Show one run: how it stands, its verdict, data, model, machine and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from tunesmith.verbs.options import on_option

if TYPE_CHECKING:
    from tunesmith.runs import Run

Lines = list[tuple[str, str]]

FILES = ("report.html", "README.md", "model", "predictions.parquet", "metrics.json", "recipe.yaml", "train.log")
"""What a user opens next, as far as it is there."""


@click.command("show")
@click.argument("run")
@click.option(
    "--output-dir", default="runs", show_default=True, metavar="DIR", help="Where a RUN that is a name is looked for."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: manifest, recipe and verdict.")
@on_option
def command(run: str, output_dir: str, as_json: bool, on: str | None) -> None:
    """Show RUN: a path, a URI, a name or its beginning, or `latest`."""
    from tunesmith.runs import Run
    from tunesmith.verbs.console import out

    found = Run.open(run, output_dir)
    if as_json:
        whole = {"name": found.name, "path": found.path, "manifest": {**found.manifest, "status": found.status}}
        click.echo(json.dumps({**whole, "recipe": found.recipe_values, "verdict": found.verdict}, indent=2, ensure_ascii=False))
        return
    for title, lines in page(found):
        out().print(f"[bold]{title}[/bold]")
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            out().print(f"  {name:<{width}}  {text}", markup=False)


def page(run: Run) -> Iterator[tuple[str, Lines]]:
    """The sections of the page, each with its lines; empty ones are left out."""
    for title, lines in (
        (f"{run.name}: {run.status}", _about(run)),
        ("Verdict on the test split", _verdict(run)),
        ("Data", _data(run)),
        ("Training", _training(run)),
        ("Made with", _made_with(run)),
        ("Files", _files(run)),
    ):
        if lines:
            yield title, lines


def _about(run: Run) -> Lines:
    from tunesmith.verbs.runs import local_time

    said = run.manifest
    lines = [("task", str(said.get("task", "?"))), ("created", local_time(said.get("created")))]
    if said.get("finished"):
        lines.append(("finished", local_time(said["finished"])))
    lines.append(("model", _base_model(run)))
    if command := said.get("command"):
        import shlex

        lines.append(("command", shlex.join(command)))
    if run.status in ("interrupted", "failed"):
        lines.append(("go on", "the same `tunesmith train` resumes it"))
    return lines


def _verdict(run: Run) -> Lines:
    from tunesmith.runs.verdict import estimates
    from tunesmith.runs.words import formatted

    lines = [(name, formatted(estimate)) for name, estimate in run.estimates.items()]
    test = run.verdict.get("test")
    baselines = test.get("baselines", {}) if isinstance(test, Mapping) else {}
    headline = run.verdict.get("headline")
    for name, baseline in baselines.items():
        found = estimates({"test": baseline}).get(str(headline))
        if found is not None:
            lines.append((f"{headline} of the {name}", formatted(found)))
    return lines


def _data(run: Run) -> Lines:
    lines = []
    for split, about in (run.manifest.get("data") or {}).items():
        rows = about.get("rows")
        source = about.get("source")
        told = [f"{rows:,} rows" if isinstance(rows, int) else "", _names(source), f"hash {str(about.get('hash'))[:12]}"]
        lines.append((split, ", ".join(part for part in told if part)))
    if run.manifest.get("split_hash"):
        lines.append(("split", f"hash {str(run.manifest['split_hash'])[:12]}"))
    return lines


def _training(run: Run) -> Lines:
    from tunesmith.runs.words import span

    said = run.manifest
    lines = []
    if isinstance(said.get("steps"), int):
        lines.append(("steps", f"{said['steps']:,}"))
    best = said.get("best") or {}
    value = best.get("value", (best.get("metrics") or {}).get(best.get("metric")))
    if best.get("step") is not None and value is not None:
        lines.append(("best", f"step {best['step']:,}, {best.get('metric')} {value:.4f}"))
    lines.append(("workers", str(said.get("workers", "?"))))
    lines += [(name, span(seconds)) for name, seconds in (said.get("durations") or {}).items() if seconds is not None]
    seeds = said.get("seeds") or {}
    if seeds:
        lines.append(("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items())))
    return lines


def _made_with(run: Run) -> Lines:
    said, lines = run.manifest, []
    hardware = said.get("hardware") or {}
    if hardware:
        memory = f"{hardware['memory'] / 2**30:,.0f} GiB" if hardware.get("memory") else ""
        parts = [f"{hardware.get('cpus', '?')} CPU cores", memory, ", ".join(hardware.get("gpus") or []) or "no GPU"]
        lines.append(("machine", ", ".join(part for part in (str(hardware.get("hostname", "")), *parts) if part)))
    if code := said.get("git"):
        lines.append(("code", f"commit {code['commit'][:12]}" + (", with changes" if code.get("dirty") else "")))
    versions = {"python": said.get("python"), **(said.get("packages") or {})}
    if text := ", ".join(f"{name} {version}" for name, version in versions.items() if version):
        lines.append(("packages", text))
    return lines


def _files(run: Run) -> Lines:
    from tunesmith import storage

    return [("folder", run.path), *((name, run.file(name)) for name in FILES if storage.exists(run.file(name)))]


def _base_model(run: Run) -> str:
    """Name and exact version of the pre-trained model."""
    base = run.manifest.get("base_model") or {}
    name = base.get("name_or_path") or (run.recipe_values.get("model") or {}).get("model_name_or_path", "?")
    exact = f"at {base['revision']}" if base.get("revision") else f"hash {base['hash'][:12]}" if base.get("hash") else ""
    return f"{name} ({exact})" if exact else str(name)


def _names(source: Any) -> str:
    return ", ".join(map(str, source)) if isinstance(source, list) else str(source or "")
