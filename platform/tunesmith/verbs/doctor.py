"""Check this machine, or a cluster: what would keep Tunesmith from working, and the fix."""

from __future__ import annotations

import dataclasses
import json

import click

from tunesmith.errors import EXIT_OK, EXIT_USER
from tunesmith.verbs.options import on_option

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@click.command("doctor")
@click.option("--storage", metavar="DIR", help="Where runs are to go: a folder or URI.  [default: runs]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_option
def command(storage: str | None, as_json: bool, on: str | None) -> int:
    """Check Python, packages, memory, disks, GPUs, Ray, and on a cluster its nodes. Exits 2 where something fails."""
    from tunesmith.cluster.doctor import examine

    findings = []
    for finding in examine(on, storage):
        findings.append(finding)
        if not as_json:
            mark, colour = MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=colour)} {finding.name:<13} {finding.found}")
            if finding.fix:
                click.echo(f"  → {finding.fix}")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    return EXIT_USER if any(finding.state == "fail" for finding in findings) else EXIT_OK
