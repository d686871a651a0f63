"""Requests per second of `tunesmith serve` beside other ways to serve the same model, client included, on the same machine.

A 6-layer, 384-wide BERT classifier and texts of log-normal length (mean 39, 95th percentile 105, at most 256 tokens); a ViT of
6 layers and 1 MB PNGs. A closed loop of 32 clients, then of one. Each server has a process of its own, one after the other, all
in turn and again; the load (``serve_load.py``) has one too and shares their cores, and so has the pass in process, over the
same texts, which no server can beat. Torch has the same number of threads everywhere. The table says who used the cores.

LitServe is installed for this alone (``pip install litserve``, Apache-2.0); without it, it is left out. py-spy shows the rest:
``py-spy record --pid PID`` of a process that the table names.

    python tests/benchmarks/bench_serve.py [--kind text] [--repeats 2] [--seconds 12] [--only tunesmith fastapi …]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from tunesmith.cluster.ports import free_port

HERE = Path(__file__).parent
THREADS = len(os.sched_getaffinity(0))
PNG_SIDE = 590
"""Noise of this side is a PNG of 1 MB."""
WAYS = {
    "text": ["in process", "tunesmith", "ray", "fastapi", "fastapi-async", "litserve"],
    "image": ["in process", "tunesmith", "fastapi"],
}
BARS = {"ray": 3.0, "fastapi": 2.0, "fastapi-async": 2.0, "litserve": 1.3, "in process": 0.7}
"""Tunesmith's requests/s at 32 clients over theirs."""
START_WITHIN = 240.0


def prepare(kind: str, folder: Path, count: int) -> tuple[str, list[Any]]:
    """A finished run with a model of that kind, and what it is asked."""
    from bench_images import vit
    from bench_text import bert, mixed_texts

    from support.runs import finished_run

    base = (bert if kind == "text" else vit)(folder / "bench-base")
    run = finished_run(
        folder, f"{kind}-classification", steps=1 if kind == "image" else 0, rows=60, model={"model_name_or_path": str(base)}
    )
    if kind == "text":
        return run.path, [row["text"] for row in mixed_texts(count, 1)]
    return run.path, [png(seed) for seed in range(min(count, 32))]


def png(seed: int) -> bytes:
    """Noise, 1 MB."""
    import io

    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (PNG_SIDE, PNG_SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def in_process(kind: str, run: str, asked: list[Any], seconds: float) -> dict[str, float]:
    """The predictor over everything at once, then over 32 at a time, as many as the clients have under way."""
    script = (
        "import sys, json, time, pickle, torch\n"
        "from tunesmith.evaluation.predictor import Predictor\n"
        "torch.set_num_threads(int(sys.argv[2]))\n"
        "predictor, asked = Predictor.load(sys.argv[1]), pickle.load(sys.stdin.buffer)\n"
        "def pace(size, seconds):\n"
        "    done, start = 0, time.perf_counter()\n"
        "    while (now := time.perf_counter() - start) < seconds:\n"
        "        at = done % len(asked)\n"
        "        done += len(predictor.predict(asked[at : at + size]))\n"
        "    return done / now\n"
        "pace(32, 2.0)\n"
        "all, some = pace(len(asked), float(sys.argv[3])), pace(32, float(sys.argv[3]))\n"
        "print(json.dumps({'per_second': all, 'of_32': some}))\n"
    )
    import pickle

    command = [sys.executable, "-c", script, f"{run}/model", str(THREADS), str(seconds)]
    told = subprocess.run(command, input=pickle.dumps(asked), capture_output=True, timeout=limit(seconds), check=True)
    found: dict[str, float] = json.loads(told.stdout.decode().splitlines()[-1])
    return found


def limit(seconds: float) -> float:
    return 120 + 5 * seconds


@contextlib.contextmanager
def serving(way: str, kind: str, run: str, folder: Path, backend: str) -> Iterator[tuple[str, list[str]]]:
    """A server in a process of its own: where it is asked, and the headers that it wants."""
    said = folder / f"{way}.out"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}
    port = free_port()
    if way == "tunesmith":
        command = [sys.executable, "-m", "tunesmith.cli", "serve", f"bench={run}", "--port", str(port), "serving.max_body_mb=8"]
        command += [f"serving.backend={backend}"] if backend != "torch" else []
    else:
        command = [sys.executable, str(HERE / "serve_peers.py"), way, kind, f"{run}/model", str(port), str(THREADS)]
    with said.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, process_group=0)
    try:
        deadline = time.monotonic() + START_WITHIN
        while not (" at http" in said.read_text() if way == "tunesmith" else answers(port, kind)):
            assert process.poll() is None, said.read_text()[-3000:]
            assert time.monotonic() < deadline, said.read_text()[-3000:]
            time.sleep(0.3)
        if way != "tunesmith":
            yield f"http://127.0.0.1:{port}/predict", []
            return
        found = re.search(r"shown this once: (\S+)", said.read_text())
        keys = folder / "key"
        if found:
            keys.write_text(found.group(1))
        yield f"http://127.0.0.1:{port}/predict/bench", [f"X-API-Key={keys.read_text()}"]
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """The server and everything in its session."""
    process.send_signal(signal.SIGTERM if "tunesmith.cli" in process.args else signal.SIGINT)  # type: ignore[operator]
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def answers(port: int, kind: str) -> bool:
    """Whether a peer answers one request."""
    body = json.dumps({"text": "word1"}).encode() if kind == "text" else png(0)
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, {"Content-Type": content_type("peer", kind)})
    try:
        with urllib.request.urlopen(asked, timeout=30):
            return True
    except OSError:
        return False


def content_type(way: str, kind: str) -> str:
    """What the bodies are."""
    if kind == "text":
        return "application/json"
    return "multipart/form-data; boundary=bench" if way == "tunesmith" else "image/png"


def bodies(way: str, kind: str, asked: list[Any], folder: Path) -> Path:
    """The requests' bodies, a file each."""
    place = folder / f"bodies-{'ours' if way == 'tunesmith' else 'theirs'}"
    place.mkdir(exist_ok=True)
    for index, one in enumerate(asked):
        if kind == "text":
            body = json.dumps({"inputs": [one]} if way == "tunesmith" else {"text": one}).encode()
        elif way == "tunesmith":
            head = b'--bench\r\nContent-Disposition: form-data; name="inputs"; filename="a.png"\r\n\r\n'
            body = head + one + b"\r\n--bench--\r\n"
        else:
            body = one
        (place / f"{index:04d}").write_bytes(body)
    return place


def load(url: str, headers: list[str], place: Path, clients: int, warm: float, seconds: float) -> dict[str, Any]:
    """The load's figures, and which processes used how many cores meanwhile."""
    command = [sys.executable, str(HERE / "serve_load.py"), url, "--bodies", str(place), "--clients", str(clients)]
    command += ["--warm", str(warm), "--seconds", str(seconds), *(part for one in headers for part in ("--header", one))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(warm + 1)
    before, start = used(), time.monotonic()
    time.sleep(max(0.5, seconds - 1.5))
    after, spent = used(), time.monotonic() - start
    out, _ = child.communicate(timeout=limit(seconds))
    assert child.returncode == 0, "the load failed; see above"
    cores: Counter[str] = Counter()
    for pid, (name, ticks) in after.items():
        cores[name] += ticks - before.get(pid, (name, ticks))[1]  # type: ignore[assignment]
    per_tick = os.sysconf("SC_CLK_TCK") * spent
    shares = {name: round(ticks / per_tick, 2) for name, ticks in cores.most_common(8) if ticks / per_tick >= 0.015}
    return {**json.loads(out), "cores": shares}


def used() -> dict[int, tuple[str, int]]:
    """Each process of the machine: what it is, and the ticks of CPU it has had (proc(5))."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            found[int(entry.name)] = (called(line), int(fields[11]) + int(fields[12]))
    return found


def called(line: str) -> str:
    """A process in a word or two."""
    for sign, name in {
        "ServeReplica": "", "serve_load": "load", "serve_peers": "server", "haproxy": "haproxy", "ProxyActor": "proxy",
        "ServeController": "controller", "raylet": "raylet", "gcs_server": "gcs", "multiprocessing": "server's workers",
    }.items():  # fmt: skip
        if sign in line:
            return name or re.sub(r"ray::ServeReplica:\w*:", "", line.split()[0])
    return "other"


def main() -> None:
    """Measure all ways in turn; print every figure, then medians, spreads, ratios and bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=WAYS, default="text")
    parser.add_argument("--backend", default="torch", help="serving.backend of Tunesmith")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--warm", type=float, default=5.0)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--folder", type=Path, help="where runs, outputs and logs are kept; a temporary one if not said")
    options = parser.parse_args()
    ways = options.only or WAYS[options.kind]
    if importlib.util.find_spec("litserve") is None and "litserve" in ways:
        print("litserve is not installed and left out")
        ways = [way for way in ways if way != "litserve"]
    told: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        run, asked = prepare(options.kind, folder, options.texts)
        if options.kind == "text":
            lengths = np.array([len(text.split()) + 2 for text in asked])
            print(f"tokens: mean {lengths.mean():.1f}, 95th percentile {np.percentile(lengths, 95):.0f}, most {lengths.max()}")
        print(f"torch has {THREADS} threads")
        for _ in range(options.repeats):
            for way in ways:
                told[way].append(measured(way, run, asked, folder, options))
                print(f"  {way:14s} {json.dumps(rounded(told[way][-1]))}", flush=True)
    print(json.dumps(summary(told)))


def measured(way: str, run: str, asked: list[Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One repetition of one way."""
    if way == "in process":
        return in_process(options.kind, run, asked, options.seconds / 2)
    place = bodies(way, options.kind, asked, folder)
    with serving(way, options.kind, run, folder, options.backend) as (url, headers):
        headers = [*headers, f"Content-Type={content_type(way, options.kind)}"]
        many = load(url, headers, place, 32, options.warm, options.seconds)
        one = load(url, headers, place, 1, 1.0, options.seconds / 2)
    return {**many, "one_p50": one["p50"], "one_per_second": one["per_second"], "one_cores": one["cores"]}


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}


def summary(told: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians with their spread, and Tunesmith's ratio to each way in the same repetition."""
    found: dict[str, Any] = {}
    for way, values in told.items():
        speeds = [one["per_second"] for one in values]
        found[way] = {"per_second": [round(x, 1) for x in (statistics.median(speeds), min(speeds), max(speeds))]}
        if ours := told.get("tunesmith"):
            ratios = [mine["per_second"] / one["per_second"] for mine, one in zip(ours, values, strict=True)]
            found[way]["ratio"] = [round(x, 3) for x in (statistics.median(ratios), min(ratios), max(ratios))]
            found[way]["bar"] = BARS.get(way)
            if "one_p50" in values[0]:
                late = [mine["one_p50"] / one["one_p50"] for mine, one in zip(ours, values, strict=True)]
                found[way]["p50_ms_one"] = round(1000 * statistics.median(one["one_p50"] for one in values), 1)
                found[way]["ratio_p50_one"] = round(statistics.median(late), 3)
    return found


if __name__ == "__main__":
    main()
