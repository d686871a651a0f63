"""What a shadow or a canary wrote down says how far two versions agree, and with labels which is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.errors import DataError, UserError
from tunesmith.evaluation.comparison import compare_sides
from tunesmith.evaluation.paired_log import agreement, labelled, read_pairs
from tunesmith_serving.mirror import Answered, _line


def answer(label: str) -> dict[str, Any]:
    return {"label": label, "score": 0.9, "scores": {"cat": 0.9, "dog": 0.1}}


def line(name: str, one: list[str], two: list[str], versions: tuple[str, str] = ("9", "10")) -> str:
    answers = {version: [answer(label) for label in said] for version, said in zip(versions, (one, two), strict=True)}
    return json.dumps({"id": name, "answered": versions[0], "mirrored": versions[1], "answers": answers})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [
        line("r1", ["cat"], ["dog"]),
        line("r2", ["cat", "dog"], ["cat", "dog"]),
        line("r1", ["cat"], ["cat"]),
        *(line(f"s{k}", ["dog"], ["dog"], ("10", "9")) for k in range(20)),
        '{"id": "cut o',
    ]
    (tmp_path / "x.pairs.jsonl").write_text("\n".join(lines))
    return tmp_path / "x.pairs.jsonl"


def test_the_later_version_is_the_new_one_and_every_example_of_a_request_counts(log: Path) -> None:
    pairs = read_pairs(str(log))
    assert (pairs.a, pairs.b) == ("10", "9")
    assert len(pairs.answers) == 23
    assert "r2#2" in pairs.answers
    assert (pairs.repeated, pairs.damaged) == (1, 1)


def test_without_labels_it_tells_agreement_and_churn(log: Path) -> None:
    found = agreement(read_pairs(str(log)))
    assert (found.n, found.churn, found.changes) == (23, 1, {"cat → dog": 1})
    assert found.agreed.low < 22 / 23 < found.agreed.high
    assert len(found.warnings) == 2


def test_with_labels_it_is_a_comparison(log: Path, tmp_path: Path) -> None:
    rows = ["id,label", "r1,dog", "r2,cat", "r2#2,dog", *(f"s{k},dog" for k in range(20)), "other,cat"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = compare_sides(*labelled(read_pairs(str(log)), str(tmp_path / "labels.csv")))
    assert (found.a, found.n, found.flips.fixed, found.flips.broken) == ("version 10", 23, 1, 0)


def test_labels_that_fit_nothing_or_have_no_column_are_refused(log: Path, tmp_path: Path) -> None:
    pairs = read_pairs(str(log))
    for text, said in (("id,label\nz,cat", "none of the pairs"), ("id,klass\nr1,cat", "needs id, and label")):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(DataError, match=said):
            labelled(pairs, str(tmp_path / "labels.csv"))
    with pytest.raises(DataError, match=r"ending \.txt"):
        labelled(pairs, str(tmp_path / "labels.txt"))


def test_versions_that_are_not_there_or_not_named_are_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no answers of version '11'"):
        read_pairs(str(log), "11", "9")
    (tmp_path / "one.jsonl").write_text("{}")
    with pytest.raises(UserError, match="0 versions"):
        read_pairs(str(tmp_path / "one.jsonl"))
    with pytest.raises(DataError, match="there is no file"):
        read_pairs(str(tmp_path / "gone.jsonl"))


def test_tags_are_right_in_their_order_and_several_labels_in_any(tmp_path: Path) -> None:
    for key, right in (("tags", [True, False]), ("labels", [True, True])):
        lines = [
            json.dumps({"id": "a", "answers": {"1": [{key: ["X", "O"]}], "2": [{key: ["X", "O"]}]}}),
            json.dumps({"id": "b", "answers": {"1": [{key: ["O", "X"]}], "2": [{key: ["O", "X"]}]}}),
        ]
        (tmp_path / "p.jsonl").write_text("\n".join(lines))
        (tmp_path / "l.jsonl").write_text("\n".join(json.dumps({"id": one, key: ["X", "O"]}) for one in "ab"))
        new, _ = labelled(read_pairs(str(tmp_path / "p.jsonl")), str(tmp_path / "l.jsonl"))
        assert new.records["correct"].to_pylist() == right


@pytest.mark.parametrize(
    ("said", "other", "labels"),
    [
        ({"label": "cat"}, {"label": "dog"}, "id,labels\na,cat"),
        ({"label": "cat"}, {"label": "dog"}, 'id,labels\na,"[""cat""]"'),
        ({"label": "3"}, {"label": "4"}, "id,label\na,3"),
        ({"labels": ["cat", "dog"]}, {"labels": ["dog"]}, 'id,label\na,"[""dog"", ""cat""]"'),
        ({"labels": ["cat"]}, {"labels": []}, "id,label\na,cat"),
        ({"tags": ["O", "O", "B-LOC"]}, {"tags": ["O", "B-LOC", "O"]}, "id,tags\na,O O B-LOC"),
        ({"tags": ["O"]}, {"tags": ["X"]}, "id,label\na,O"),
    ],
)
def test_the_right_answer_is_read_in_the_answers_shape(
    said: dict[str, Any], other: dict[str, Any], labels: str, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "answers": {"2": [said], "1": [other]}}))
    (tmp_path / "l.csv").write_text(labels)
    new, old = labelled(read_pairs(str(tmp_path / "p.jsonl")), str(tmp_path / "l.csv"))
    assert (new.records["correct"].to_pylist(), old.records["correct"].to_pylist()) == ([True], [False])
    shown = [sorted(new.records[column][0].as_py().split(", ")) for column in ("reference", "prediction")]
    assert shown[0] == shown[1]


def test_it_reads_what_a_service_writes(tmp_path: Path) -> None:
    class By:
        name, labels = "m", ["cat", "dog"]

        def __init__(self, version: str) -> None:
            self.version = version

    said = {"label": "cat", "probabilities": [0.7, 0.3]}
    done = Answered("q", [{}], [said], By("1"), 0.01, 10)  # type: ignore[arg-type]
    (tmp_path / "p.jsonl").write_text(json.dumps(_line(done, [said], By("2"), 0.01, [True])))  # type: ignore[arg-type]
    assert agreement(read_pairs(str(tmp_path / "p.jsonl"))).agreed.value == 1


def test_what_has_gone_to_the_file_before_is_read_first(log: Path) -> None:
    log.with_name(f"{log.name}.1").write_text(line("r1", ["dog"], ["dog"]) + "\n" + line("old", ["cat"], ["dog"]) + "\n")
    pairs = read_pairs(str(log))
    assert list(pairs.answers)[:3] == ["r1", "old", "r2"]
    log.unlink()
    assert len(read_pairs(str(log)).answers) == 2


def test_the_newest_rollout_is_that_of_the_versions_which_are_named(tmp_path: Path) -> None:
    told = [("1", "2", "r1"), ("1", "2", "r2"), ("2", "3", "r3")]
    lines = [json.loads(line(f"q{k}", ["cat"], ["cat"], (old, new))) | {"rollout": of} for k, (old, new, of) in enumerate(told)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert list(read_pairs(str(tmp_path / "p.jsonl"), "2", "1").answers) == ["q1"]
    assert read_pairs(str(tmp_path / "p.jsonl")).a == "3"


def test_pairs_of_other_models_and_other_rollouts_are_not_mixed_in(tmp_path: Path) -> None:
    told = [("m", "r1", "cat"), ("m", "r2", "dog"), ("other", "r3", "cat")]
    lines = [
        json.dumps({**json.loads(line(f"q{k}", ["cat"], [said], ("1", "2"))), "model": model, "rollout": rollout})
        for k, (model, rollout, said) in enumerate(told)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    place = str(tmp_path / "p.jsonl")
    assert list(read_pairs(place, model="m", rollout="r1").answers) == ["q0"]
    assert list(read_pairs(place, model="m", rollout="r2").answers) == ["q1"]
    with pytest.raises(UserError, match=r"pairs of 2 models: m, other\n.*--model m"):
        read_pairs(place)
    with pytest.raises(UserError, match="no pairs of the model 'mm'"):
        read_pairs(place, model="mm")
    newest = read_pairs(place, model="m")
    assert (list(newest.answers), newest.others) == (["q1"], ("r1",))
    assert "the newest rollout; others are left out: r1 (--rollout ID)" in agreement(newest).warnings[0]
    with pytest.raises(DataError, match=r"no pair of this rollout.*\n.*the file has r2, r1"):
        read_pairs(place, model="m", rollout="r3")
