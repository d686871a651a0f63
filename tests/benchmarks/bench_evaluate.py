"""What an evaluation costs beside the passes that it cannot do without, and what the client of ``loadtest`` can ask.

A 6-layer, 384-wide BERT classifier and texts of log-normal length (mean 39, at most 256 tokens). ``evaluate RUN`` stands beside
a bare loop over the same batches of the same prepared data, ``evaluate URL`` beside what the same server answers to a closed
loop of the same requests; both with everything, the bootstrap, the parity check and the files included. Ways are timed in turn.
The client is measured against a server that does nothing, in a process of its own, beside httpx.

    python tests/benchmarks/bench_evaluate.py [--examples 2000] [--repeats 2]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

BARS = {"evaluate RUN": 0.9, "evaluate URL": 0.8}
"""Examples/s over those of the bare loop, and of the server under a closed loop."""
SERVER = """
import sys
from pathlib import Path
import uvicorn
from support.served import Service
from tunesmith_serving.engine import Engine
service = Service(Path(sys.argv[2]), Engine.load(sys.argv[1] + "/model", "m"))
Path(sys.argv[2], "key").write_text(service.key)
uvicorn.run(service.app, host="127.0.0.1", port=int(sys.argv[3]), log_level="error", lifespan="off", ws="none")
"""
NOTHING = (
    "import time\nfrom support.trivial import trivial\nwith trivial() as url:\n    print(url, flush=True)\n    time.sleep(600)"
)


@contextlib.contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own, ended with the context."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    made = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield made
    finally:
        made.kill()
        made.wait(20)


def prepared(folder: Path, examples: int) -> tuple[Any, str]:
    """A run with the model, and a file of labelled texts."""
    from bench_text import bert, mixed_texts

    from support.runs import finished_run

    base = bert(folder / "bench-base")
    run = finished_run(
        folder,
        "text-classification",
        steps=0,
        rows=60,
        model={"model_name_or_path": str(base)},
        evaluation={"baseline": False},
    )
    data = folder / "judged.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in mixed_texts(examples, seed=1)))
    return run, str(data)


def bare(run: Any, data: str) -> float:
    """Seconds of the passes alone."""
    from tunesmith.data.prepare import prepare_frozen
    from tunesmith.evaluation.predictor import Predictor

    predictor = Predictor.load(run.local_model())
    given = prepare_frozen(run.recipe, predictor.task, predictor.preprocessing, data, output_dir=run.recipe.training.output_dir)
    start = time.perf_counter()
    for _ in predictor.predict_split(given.splits["test"]):
        pass
    return time.perf_counter() - start


def evaluated(run: Any, data: str) -> float:
    """Seconds of ``evaluate RUN``, with the data prepared."""
    from tunesmith.evaluation.evaluate import evaluate_run

    return evaluate_run(run, data=data).seconds


def served(run: Any, data: str, url: str, key: str, examples: int, folder: Path) -> tuple[float, float]:
    """Samples/s of the server under a closed loop of requests of 32, and of ``evaluate URL``."""
    from tunesmith.evaluation.load.connection import Endpoint
    from tunesmith.evaluation.load.shoot import Load, requests_of, shoot
    from tunesmith.evaluation.predictions import in_blocks
    from tunesmith.evaluation.served import Wanted, evaluate_url, known_of, open_target, samples

    wanted = Wanted(url, key, data=data, task="text-classification", out=str(folder / "out"), overwrite=True)
    with open_target(wanted, *known_of(wanted)) as target:
        endpoint = Endpoint.of(target.infer_url(), key)
        requests = requests_of(target, in_blocks(samples(wanted, target)), endpoint, 32)
    load = Load(clients=8, seconds=20, warm_up=2, timeout=60, batch_size=32)
    most = 32 * shoot(endpoint, requests, load).throughput.value
    return most, examples / evaluate_url(wanted).seconds


async def by_httpx(url: str, clients: int, seconds: float) -> float:
    """Requests/s of httpx."""
    import httpx

    done = 0
    end = time.perf_counter() + seconds

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await http.post(url, content=b"{}")
            done += 1

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=clients)) as http:
        await asyncio.gather(*(client(http) for _ in range(clients)))
    return done / seconds


def the_client() -> dict[str, float]:
    """Requests/s against a server that does nothing, 32 clients."""
    from tunesmith.evaluation.load.connection import Endpoint
    from tunesmith.evaluation.load.shoot import Load, shoot

    with process(NOTHING) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip() + "/v2/models/m/infer"
        endpoint = Endpoint.of(url)
        ours = shoot(endpoint, [endpoint.request(b"{}")], Load(clients=32, seconds=5, warm_up=1)).throughput.value
        return {"ours": ours, "httpx": asyncio.run(by_httpx(url, 32, 5))}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    n = options.examples
    client = the_client()
    print(f"the client alone: {client['ours']:,.0f} requests/s, httpx {client['httpx']:,.0f} (32 clients, a server of nothing)")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run, data = prepared(folder, n)
        evaluated(run, data)  # prepares the data
        loops = [(n / bare(run, data), n / evaluated(run, data)) for _ in range(options.repeats)]
        with process(SERVER, str(run.path), str(folder), "8191"):
            while not (folder / "key").exists():
                time.sleep(0.2)
            time.sleep(3)
            url, key = "http://127.0.0.1:8191/v2/models/m", (folder / "key").read_text()
            asked = [served(run, data, url, key, n, folder) for _ in range(options.repeats)]
    for name, pairs in (("evaluate RUN", loops), ("evaluate URL", asked)):
        most, ours = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        verdict = "met" if ours / most >= BARS[name] else "MISSED"
        print(f"{name}: {ours:.1f} examples/s of {most:.1f}: {ours / most:.2f} (bar {BARS[name]}: {verdict})")


if __name__ == "__main__":
    main()
