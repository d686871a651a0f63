"""Five simulated sites on the shared Ray: one model, judged and served like any other run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesmith import storage
from tunesmith.runs import Run
from tunesmith_federated.federate import federate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def made(project: Path, ray_local: Any) -> Run:
    sites = ["federation.sites=5", "federation.min_sites=4", "federation.partition.by=dirichlet", "federation.min_examples=1"]
    training = ["training.num_train_epochs=12", "federation.local_epochs=3", "training.per_device_train_batch_size=8"]
    return federate(str(project / "recipe.yaml"), [*sites, *training], compare=True)


def test_the_run_is_a_run_like_any_other(made: Run) -> None:
    assert made.status == "done"
    assert (made.metrics["accuracy"] or 0) > 0.7
    assert [answer["label"] for answer in made.predict(["word1 word2 word3 word1", "word51 word52 word47 word50"])] == [
        "low",
        "high",
    ]
    assert made.name.startswith("reviews-federated-")


def test_every_round_and_site_is_on_record(made: Run) -> None:
    rows = pq.read_table(io.BytesIO(storage.read_bytes(made.file("rounds.parquet")))).to_pylist()
    assert {(row["round"], row["site"]) for row in rows} == {(k, f"site-{i:02d}") for k in range(1, 6) for i in range(5)}
    assert {row["status"] for row in rows} == {"replied"}
    assert [line["step"] for line in made.history if line["split"] == "sites"] == [0, 1, 2, 3, 4]
    told = made.manifest["federation"]
    assert sum(one["train"] for one in told["rows"].values()) == sum(row["examples"] for row in rows if row["round"] == 1)
    page = storage.read_text(made.file("report.html"))
    assert "5 sites trained one model in 4 rounds" in page
    assert "Was it worth it?" in page


def test_it_is_held_against_all_rows_together_and_each_site_alone(made: Run) -> None:
    compared = made.manifest["federation"]["compared"]
    assert set(compared["sites"]) == {"all rows together", *(f"site-{i:02d}" for i in range(5))}
    alone = compared["sites"][compared["typical"]]
    assert alone["federation"]["low"] <= alone["federation"]["value"] <= alone["federation"]["high"]


@pytest.mark.usefixtures("ray_local")
def test_the_same_command_trains_nothing_again_where_a_finished_run_is_named(made: Run, project: Path) -> None:
    from tunesmith.errors import RunError

    with pytest.raises(RunError, match="is a finished run of this recipe"):
        federate(made.recipe, run=made.path)


@pytest.mark.usefixtures("ray_local")
def test_a_process_that_dies_is_replaced_and_what_it_was_asked_is_asked_once_more(tmp_path: Path) -> None:
    import os

    import ray

    from tunesmith_federated.codec import encode
    from tunesmith_federated.messages import asking
    from tunesmith_federated.protocol import Ask
    from tunesmith_federated.simulation.grid import RayGrid

    @ray.remote(num_cpus=0)
    class Dying:
        """Dies at the first question that any of its kind gets."""

        def __init__(self, mark: str) -> None:
            self.mark = mark

        def answer(self, messages: Any, sites: Any, shared: Any) -> Any:
            from tunesmith_federated.flower import Message, RecordDict

            if "a" in sites and not Path(self.mark).exists():
                Path(self.mark).touch()
                os._exit(1)
            if "c" in sites:
                os._exit(1)
            return [Message(RecordDict(), reply_to=message) for message in messages], 0.001

    mark = str(tmp_path / "died")
    grid = RayGrid([*(f"b{number}" for number in range(40)), "a", "c"], 2, lambda: Dying.remote(mark))
    ask = Ask("train", "job", 1, 1, "", "")
    try:
        messages = [asking(ask, node, encode({}), encode({}), 60.0) for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages, timeout=120))
        lost = [message.error.reason for message in replies if message.has_error()]
        assert len(replies) == 42
        assert len(lost) == 1
        assert "its process died" in lost[0]
    finally:
        grid.close()
