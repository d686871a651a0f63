"""Deals the digits' training scans out to the hospitals of a federation, and writes each one's word into its ``site.yaml``.

    python examples/hospitals/make_data.py FEDERATION FINGERPRINT [SCANS]

``FEDERATION`` is the folder that `tunesmith federation init` has made; ``FINGERPRINT`` is of the recipe that owners allow.
``SCANS`` is where `examples/digits/make_data.py` has put the training scans, if not beside it.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import yaml

SCANS = Path(__file__).parents[1] / "digits" / "data" / "train"


def main(federation: Path, fingerprint: str, scans: Path = SCANS) -> None:
    """One folder of scans for each site, in turn."""
    sites = sorted(place.parent for place in federation.glob("sites/*/site.yaml"))
    with (scans / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, site in enumerate(sites):
        mine = rows[number :: len(sites)]
        (site / "scans").mkdir(exist_ok=True)
        for row in mine:
            shutil.copy(scans / row["file_name"], site / "scans")
        with (site / "scans" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(mine)
        word = yaml.safe_load((site / "site.yaml").read_text(encoding="utf-8"))
        word["data"] = {"train": "scans"}
        word["allow"] = {"recipes": [fingerprint], "base_models": ["*/examples/digits/base"]}
        (site / "site.yaml").write_text(yaml.safe_dump(word, sort_keys=False), encoding="utf-8")
        print(f"{site.name}: {len(mine)} scans")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:4]))
