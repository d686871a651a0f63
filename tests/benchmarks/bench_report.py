"""The report with ten thousand samples: how large it is, how long it takes to write, to come up in a browser, and to filter.

    python tests/benchmarks/bench_report.py [SAMPLES]

The browser's times are those of one process on this machine; beside them stand those of the same report without samples.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.browser import BROWSER
from support.models import WORDS
from support.runs import finished_run
from tunesmith.data.prepare import prepare
from tunesmith.evaluation.evaluate import evaluate_run
from tunesmith.evaluation.examples import samples
from tunesmith.evaluation.predictions import read_predictions
from tunesmith.evaluation.results import Evaluation, Samples
from tunesmith.report.html import render
from tunesmith.runs import Run
from tunesmith.tasks import load_task

SAMPLES, TIMES = 10_000, 5
PROBE = """<script>
const at = {}, frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
addEventListener("load", async () => {
  await frame(); await frame();
  at.paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? performance.now();
  at.load = performance.timing.loadEventStart - performance.timing.navigationStart;
  const wrong = document.getElementById("s-w");
  if (wrong) {
    const begun = performance.now();
    wrong.click(); document.body.offsetHeight; await frame();
    at.filter = performance.now() - begun;
  }
  await fetch("/done", {method: "POST", body: JSON.stringify(at)});
});
</script>"""


class Door(BaseHTTPRequestHandler):
    """Gives the page, and takes what it measured."""

    page: bytes
    told: dict[str, float]
    heard: threading.Event

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.page if self.path == "/" else b"")

    def do_POST(self) -> None:
        type(self).told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.heard.set()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def looked_at(page: str) -> dict[str, float]:
    """Milliseconds to the first paint, to the end of loading, and of one filter."""
    free = page.replace('<meta http-equiv="Content-Security-Policy"', '<meta name="none"', 1).replace(
        "</head>", PROBE + "</head>"
    )
    door = type("OneDoor", (Door,), {"page": free.encode(), "told": {}, "heard": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        command = [str(BROWSER), *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert door.heard.wait(120), "the page never told its times"
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
            server.server_close()
    found: dict[str, float] = door.told
    return found


def reviews(n: int) -> Iterator[dict[str, Any]]:
    """Texts of 10 to 80 words of either half of the vocabulary."""
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(n):
        low, half, length = bool(rng.integers(2)), len(WORDS) // 2, int(rng.integers(10, 80))
        ids = rng.integers(0, half, length) + np.where(rng.random(length) < 0.55, 0, half)
        yield {"text": " ".join(WORDS[(k + (0 if low else half)) % len(WORDS)] for k in ids), "label": "low" if low else "high"}


def judged(folder: Path, task: str, n: int) -> tuple[Run, Evaluation]:
    """A small run and its verdict on ``n`` examples, not timed."""
    if task == "text-classification":
        run = finished_run(folder, task, evaluation={"bootstrap_samples": 100, "baseline": False, "max_samples": 0})
        (folder / "test.jsonl").write_text("\n".join(map(json.dumps, reviews(n))))
        return run, evaluate_run(run, data=str(folder / "test.jsonl"))
    run = finished_run(
        folder, task, rows=int(n / 0.3), evaluation={"bootstrap_samples": 100, "baseline": False, "max_samples": 0}
    )
    return run, evaluate_run(run)


def measure(task: str, n: int) -> None:
    """Print a line for the report without samples, and one for that with them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, found = judged(folder, task, n)
        made = load_task(task)
        prepared = prepare(run.recipe, made, output_dir=run.recipe.training.output_dir)
        split = prepared.splits["test"]
        if found.source is not None:
            from tunesmith.data.prepare import prepare_frozen
            from tunesmith.evaluation.judges import Here

            split = prepare_frozen(
                run.recipe, made, Here(run).preprocessing, found.source, output_dir=run.recipe.training.output_dir
            ).splits["test"]
        begun = time.perf_counter()
        chosen = samples(read_predictions(f"{found.folder}/predictions.parquet"), split, made, n)
        chosen_in = time.perf_counter() - begun
        for title, one in (("none", Samples()), (f"{len(chosen.shown):,}", chosen)):
            begun = time.perf_counter()
            page = render(run, dataclasses.replace(found, samples=one))
            seconds = time.perf_counter() - begun
            size = len(page.encode()) / 1e6
            times = f"chosen {chosen_in if one.shown else 0:5.2f} s  written {seconds:5.2f} s"
            line = f"{task:22} {title:>7} samples  {size:6.2f} MB  {times}"
            if BROWSER is not None:
                seen = [looked_at(page) for _ in range(TIMES)]
                middle = {key: sorted(each[key] for each in seen)[TIMES // 2] for key in seen[0]}
                line += "".join(f"  {key} {value:,.0f} ms" for key, value in middle.items())
            print(line, flush=True)


def main() -> None:
    """Texts, then images."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    for task in ("text-classification", "image-classification"):
        measure(task, n)


if __name__ == "__main__":
    main()
