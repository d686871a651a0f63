"""Seconds from the command to the first optimizer step with two workers, beside the barest Ray Train script.

The script makes the same imports, loads the same model and takes one step. Both are timed from the start of the process to the
moment a line shows that the step is done, in turn; the ratio is of the medians.

    python tests/benchmarks/bench_startup.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.data import texts
from support.models import tiny_bert

BAREST = """
import sys
import ray, ray.train
from ray.train import ScalingConfig, RunConfig
from ray.train.torch import TorchTrainer
import transformers

def work(config):
    import torch, accelerate, pyarrow
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(config["base"])
    model = AutoModelForSequenceClassification.from_pretrained(config["base"], num_labels=2)
    model = ray.train.torch.prepare_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    batch = tokenizer(["word1 word2 word3"] * 8, padding=True, return_tensors="pt")
    model(**batch, labels=torch.zeros(8, dtype=torch.long)).loss.backward()
    optimizer.step()
    open(config["mark"], "a").write("step\\n")

ray.init(include_dashboard=False)
TorchTrainer(
    work,
    train_loop_config={"base": sys.argv[1], "mark": sys.argv[2]},
    scaling_config=ScalingConfig(num_workers=2),
    run_config=RunConfig(storage_path=sys.argv[3], name="run"),
).fit()
"""
LIMIT = 240.0


def seconds_to_mark(command: list[str], folder: Path, pattern: str) -> float:
    """Seconds until a file that matches ``pattern`` has content; the process is ended then."""
    begun = time.perf_counter()
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        while time.perf_counter() - begun < LIMIT:
            if any(file.stat().st_size for file in folder.glob(pattern)):
                return time.perf_counter() - begun
            if process.poll() is not None:
                raise RuntimeError((folder / "output.log").read_text())
            time.sleep(0.05)
        raise TimeoutError(f"{command[:3]} took no step in {LIMIT} s")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Time both, in turn, and print the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"barest": [], "tunesmith": []}
    with tempfile.TemporaryDirectory() as scratch:
        base = tiny_bert(Path(scratch, "base"))
        for index in range(options.repeats):
            folder = Path(scratch, f"barest-{index}")
            folder.mkdir()
            (folder / "barest.py").write_text(BAREST)
            command = [sys.executable, "barest.py", str(base), str(folder / "mark"), str(folder / "storage")]
            found["barest"].append(seconds_to_mark(command, folder, "mark"))
            folder = Path(scratch, f"tunesmith-{index}")
            folder.mkdir()
            with (folder / "rows.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(texts(400))
            recipe = {
                "task": "text-classification",
                "model": {"model_name_or_path": str(base)},
                "data": {"train": "rows.csv"},
                "training": {"num_workers": 2, "logging_steps": 1, "num_train_epochs": 50},
            }
            (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
            command = [str(Path(sys.executable).with_name("tunesmith")), "train", "recipe.yaml"]
            found["tunesmith"].append(seconds_to_mark(command, folder, "runs/*/metrics.jsonl"))
            print({name: round(values[-1], 1) for name, values in found.items()}, flush=True)
    medians = {name: round(statistics.median(values), 1) for name, values in found.items()}
    print(json.dumps({"seconds_to_first_step": medians, "ratio": round(medians["tunesmith"] / medians["barest"], 2)}))


if __name__ == "__main__":
    main()
