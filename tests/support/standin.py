"""A server app and a site app that do next to nothing, to test what lies between them."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith_federated.flower import ArrayRecord, ConfigRecord, Message, RecordDict, ServerApp

server = ServerApp()


@server.main()
def main(grid: Any, context: Any) -> None:
    """Rounds in which each site adds 1 to an array; ``spec.json`` says how many, ``out.json`` what came of them."""
    from tunesmith_federated.deployment.patient import patient

    grid = patient(grid)
    job = Path(context.run_config["job"])
    spec = {"sites": 2, "rounds": 3, "numbers": 100, "timeout": 60.0, "pause": 0.0} | json.loads(
        (job / "spec.json").read_text()
    )
    array = np.zeros(spec["numbers"], np.float32)
    rounds: list[dict[str, Any]] = []
    for number in range(1, spec["rounds"] + 1):
        while len(nodes := list(grid.get_node_ids())) < spec["sites"]:
            time.sleep(0.1)
        begun = time.monotonic()
        content = RecordDict({"array": ArrayRecord([array]), "words": ConfigRecord({"round": number})})
        sent = [Message(content, node, "train", ttl=spec["timeout"], group_id=str(number)) for node in nodes]
        waiting = set(grid.push_messages(sent))
        came: list[Message] = []
        while waiting and time.monotonic() - begun < spec["timeout"]:
            for message in grid.pull_messages(list(waiting)):
                waiting.discard(message.metadata.reply_to_message_id)
                came.append(message)
            time.sleep(0.05)
        good = [message for message in came if message.has_content()]
        if good:
            array = np.mean([message.content["array"].to_numpy_ndarrays()[0] for message in good], axis=0)
        errors = [message.error.reason for message in came if message.has_error()]
        seconds = time.monotonic() - begun
        rounds.append({"replies": len(good), "errors": errors, "seconds": seconds, "mean": float(array.mean())})
        (job / "out.json").write_text(json.dumps(rounds), encoding="utf-8")
        time.sleep(spec["pause"])


def add_one(message: Any, context: Any) -> Any:
    """A site's answer; a file ``fail`` beside its ``site.yaml`` makes it fail with words that must not leave.

    No two sites answer alike, though their mean is the same: SuperLink asks nobody for a piece that another has sent already.
    """
    import os
    import zlib

    own, array = Path(os.environ["TUNESMITH_SITE_CONFIG"]), message.content["array"].to_numpy_ndarrays()[0]
    if own.with_name("fail").exists():
        raise ValueError("patient 4711 has the flu")
    answer = array + np.float32(1)
    answer[:2] += np.float32((1 + zlib.crc32(str(own).encode()) % 1000) / (1 << 20)) * np.array([1, -1], np.float32)
    return Message(RecordDict({"array": ArrayRecord([answer])}), reply_to=message)


if __name__ == "__main__":  # a site: python -m support.standin site.yaml [SECONDS between heartbeats, 10 at the least]
    import signal

    from tunesmith.errors import UserError
    from tunesmith_federated.deployment import fleet, join, site_config

    if len(sys.argv) > 2:
        fleet.HEARTBEAT_SECONDS = int(sys.argv[2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does it
    join.log_to_terminal()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            join.join(site_config.read(sys.argv[1]), add_one)
        except UserError as error:
            print(error)
            sys.exit(2)
