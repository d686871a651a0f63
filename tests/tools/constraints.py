"""Writes ``constraints.txt``: every version of everything that ``make install`` installs.

pip resolves pyproject.toml afresh, as for an empty environment, and nothing is installed. Torch is pinned without its build
(``+cpu``, ``+cu130``) and the CUDA libraries it brings are left to it, so that the same file serves machines with and without
GPUs. Usage: ``make constraints``
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_TO_TORCH = re.compile(r"nvidia-|cuda-|triton")
HEADER = """\
# Every version that Tunesmith is tested with. Made by `make constraints`; use it with
#   pip install -c constraints.txt tunesmith
"""


def resolve() -> dict[str, str]:
    """The version of each package that an empty environment would get."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*command, "-e", f"{ROOT}[dev,examples,trackers]"], check=True, cwd=folder)
        found = [package["metadata"] for package in json.loads(report.read_text())["install"]]
    return {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].split("+")[0] for item in found}


def main() -> None:
    """Writes the file beside pyproject.toml."""
    versions = {name: version for name, version in resolve().items() if name != "tunesmith" and not LEFT_TO_TORCH.match(name)}
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    (ROOT / "constraints.txt").write_text(HEADER + lines, encoding="utf-8")
    print(f"constraints.txt: {len(versions)} packages")


if __name__ == "__main__":
    main()
