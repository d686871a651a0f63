"""What Ray says is in the log and not on the screen."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

import pytest

from tunesmith.cluster.quiet import NOISE, quiet_ray


def test_descriptors_loggers_and_workers_go_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    log = tmp_path / "runs" / "train.log"
    with quiet_ray(str(log)) as capture:
        with capture():
            os.write(2, b"from C++\n")
        logging.getLogger("ray.somewhere").warning("from a logger")
        dispatcher.emit({"pid": 7, "ip": "h", "actor_name": "Worker", "is_err": False, "lines": ["from a worker", NOISE]})
        dispatcher.emit({"pid": "autoscaler", "ip": "h", "lines": ["status table"]})
        assert capture.follows_workers
    text = log.read_text()
    for wanted in ("from C++", "from a logger", "(Worker pid=7, h) from a worker"):
        assert wanted in text
    assert NOISE not in text
    assert "status table" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
def test_a_full_disk_costs_the_log_its_lines_and_the_screen_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    with quiet_ray("/dev/full") as capture:
        with capture():
            os.write(2, b"from C++\n")
        logging.getLogger("ray.somewhere").warning("from a logger")
        dispatcher.emit({"pid": 7, "ip": "h", "actor_name": "Worker", "is_err": False, "lines": ["from a worker"]})
    assert capfd.readouterr() == ("", "")


def test_a_warning_while_ray_has_taken_its_handlers_away_goes_to_the_log_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    with quiet_ray(str(tmp_path / "ray.log")) as capture:
        with capture():
            monkeypatch.setattr(sys, "stderr", screen)  # as a progress bar leads it back to the screen
            logging.getLogger("ray").handlers = []
            logging.getLogger("ray").warning("tokens are in use")
        capture.take_logger()
    assert screen.getvalue() == ""
    assert "tokens are in use" in (tmp_path / "ray.log").read_text()


def test_without_a_log_it_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_ray(None) as capture:
        with capture() as said:
            os.write(2, b"from C++\n")
            assert said.text() == "from C++\n"
        assert said.text() == "from C++\n"
        assert not capture.follows_workers
    assert capfd.readouterr() == ("", "")


def test_everything_is_as_before_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("ray")
    before = logger.handlers[:], logger.propagate
    with quiet_ray(None):
        pass
    assert (logger.handlers, logger.propagate) == before
    os.write(1, b"on the screen\n")
    assert capfd.readouterr().out == "on the screen\n"
