"""A model behind the OpenAI protocol is judged by the labels that its words are; words that are none of them are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import f1_score

from support import chat
from support.chat import KEY, Chat
from support.data import texts
from support.runs import finished_run
from support.served import listening
from tunesmith import cli
from tunesmith.evaluation import service as transport
from tunesmith.evaluation.service import KEY_VARIABLE
from tunesmith.tasks.classes import NO_LABEL

pytestmark = pytest.mark.unit

ROWS = [{"text": f"review {k}", "label": "good" if k % 3 else "bad"} for k in range(48)]
WRONG, UNMATCHED = range(0, 48, 8), range(5, 48, 16)
"""Places of answers with the other label, and of answers that name none."""
WAYS = ["{}", " {}.", '"{}"', "**{}**\n", "{}!"]
LABELS = ["bad", "good"]
CHECKED = 2 * 32
"""Requests of the parity check."""
Judge = Callable[..., Result]


def label_said(place: int) -> str:
    right = str(ROWS[place]["label"])
    if place in UNMATCHED:
        return NO_LABEL
    return LABELS[1 - LABELS.index(right)] if place in WRONG else right


def words_said(place: int) -> str:
    label = label_said(place)
    if label == NO_LABEL:
        return f"I would rather not say whether {place} is good."
    return WAYS[place % len(WAYS)].format(label.upper() if place % 2 else label)


SAYS = {row["text"]: words_said(place) for place, row in enumerate(ROWS)}
RIGHT = 48 - 6 - 3


@pytest.fixture(scope="module")
def listening_server() -> Iterator[tuple[Chat, str]]:
    """The server, and its URL."""
    made = Chat({})
    with listening(made.app) as url:
        yield made, f"openai:{url}/v1"


@pytest.fixture
def server(listening_server: tuple[Chat, str]) -> Chat:
    """The server without a fault, and nothing asked."""
    made = listening_server[0]
    made.says, made.models, made.key, made.breaks_after, made.busy = dict(SAYS), ["parrot"], "", None, 0
    made.refuses, made.said, made.seconds = set(), None, 0.0
    made.asked.clear()
    return made


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening_server: tuple[Chat, str], server: Chat) -> Judge:
    """``tunesmith evaluate openai:URL#parrot …`` over 48 texts, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    data()
    target()
    arguments = ["--data", "data.jsonl", "--target", "target.yaml", "--out", "judged"]

    def typed(*more: str, url: str = f"{listening_server[1]}#parrot") -> Result:
        return CliRunner().invoke(cli.main, ["evaluate", url, *arguments, *more])

    return typed


def data(**beside: str) -> None:
    """Writes ``data.jsonl``, each row with what stands ``beside``."""
    Path("data.jsonl").write_text("".join(json.dumps({**row, **beside}) + "\n" for row in ROWS))


def target(**changes: Any) -> None:
    """Writes ``target.yaml``."""
    Path("target.yaml").write_text(json.dumps({"labels": LABELS, **changes}))


def verdict() -> dict[str, Any]:
    return dict(json.loads(Path("judged/metrics.json").read_text()))


def flat(done: Result) -> str:
    return " ".join(done.output.split())


def test_words_are_judged_as_the_labels_that_they_are(judge: Judge, server: Chat) -> None:
    done = judge()
    assert done.exit_code == 0, done.output
    metrics = verdict()["test"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(RIGHT / len(ROWS))
    truth, said = [row["label"] for row in ROWS], [label_said(place) for place in range(len(ROWS))]
    wanted = f1_score(truth, said, labels=LABELS, average="macro")
    assert metrics["f1_macro"]["value"] == pytest.approx(wanted)
    assert pq.read_table("judged/predictions.parquet")["prediction"].to_pylist() == said
    assert len(server.asked) == CHECKED + len(ROWS)
    assert sorted(path.name for path in Path("judged").iterdir()) == [
        "answers.jsonl",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "terms.json",
    ]


def test_the_request_is_a_plain_question_unless_said(judge: Judge, server: Chat) -> None:
    judge()
    body = server.asked[-1]
    (only,) = body.pop("messages")
    assert body == {"model": "parrot", "temperature": 0, "max_tokens": 16}
    assert only["role"] == "user"
    assert re.fullmatch(
        r"Classify the text. Answer with exactly one of these labels, and nothing else: bad, good\n\ntext: review \d+",
        only["content"],
    )


def test_a_target_file_says_how_it_is_asked_and_read(judge: Judge, server: Chat) -> None:
    words = {"bad": "thumbs down", "good": "Thumbs up!"}
    parameters = {"max_tokens": None, "max_completion_tokens": 9}
    target(chat={"system": "Be {brief}.", "prompt": "{{{labels}}}: {text}", "words": words, "parameters": parameters})
    server.says = {text: words[str(row["label"])] for text, row in zip(SAYS, ROWS, strict=True)}
    done = judge()
    assert done.exit_code == 0, done.output
    assert verdict()["test"]["metrics"]["accuracy"]["value"] == 1
    body = server.asked[-1]
    system, user = body.pop("messages")
    assert body == {"model": "parrot", "temperature": 0, "max_completion_tokens": 9}
    assert system == {"role": "system", "content": "Be {brief}."}
    assert re.fullmatch(r"\{thumbs down, Thumbs up!\}: review \d+", user["content"])


def test_answers_that_name_no_label_are_told_and_wrong(judge: Judge, server: Chat) -> None:
    told = flat(judge())
    assert f"{len(UNMATCHED)} of 48 answers name none of the labels, and count as wrong" in told
    assert "'I would rather not say whether 5 is good.'" in told
    assert "data.jsonl" in told
    matrix = next(one for one in verdict()["test"]["charts"] if one["kind"] == "confusion")["data"]
    assert matrix["labels"] == [*LABELS, NO_LABEL]
    assert sum(row[-1] for row in matrix["counts"]) == len(UNMATCHED)
    assert sum(map(sum, matrix["counts"])) == len(ROWS)
    lines = [json.loads(line) for line in Path("judged/answers.jsonl").read_text().splitlines()[1:]]
    assert {one["i"] for one in lines if "said" in one["a"]} == set(UNMATCHED)


def test_other_words_without_a_label_are_no_mismatch(judge: Judge, server: Chat) -> None:
    """It says something else each time that it is asked about a text, and never a label."""
    server.says = {}
    judge("--suite", "robustness", "evaluation.robustness.severities=[1]")
    assert verdict()["test"]["suites"]["parity"]["measures"]["agreement"]["value"] == 1
    assert verdict()["test"]["metrics"]["accuracy"]["value"] == 0


def test_what_needs_probabilities_is_left_out_in_one_line(judge: Judge, server: Chat) -> None:
    done = judge("--suite", "calibration")
    assert flat(done).count("tells no probabilities") == 1
    assert not {"log_loss", "ece", "roc_auc", "pr_auc", "loss", "brier"} & set(verdict()["test"]["metrics"])
    assert "does not tell scores" in verdict()["test"]["suites"]["calibration"]["skipped"]


def test_two_texts_are_asked_about_together(judge: Judge, server: Chat) -> None:
    data(text_pair="the same")
    server.says["the same"] = "good"
    done = judge()
    assert done.exit_code == 0, done.output
    assert re.search(r"\n\ntext: review \d+\ntext_pair: the same$", server.asked[-1]["messages"][0]["content"])
    server.asked.clear()
    target(chat={"prompt": "Does A follow from B? A: {text} B: {text_pair}"})
    assert judge("--overwrite").exit_code == 0
    assert server.asked[-1]["messages"][0]["content"].endswith(" B: the same")
    data()
    missing = judge("--overwrite")
    assert (missing.exit_code, "text_pair is missing, and chat.prompt names it" in flat(missing)) == (2, True)


def test_it_is_set_beside_the_run_that_it_should_answer_like(judge: Judge, server: Chat, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "made", "text-classification", steps=4, evaluation={"bootstrap_samples": 100})
    rows = texts(20, seed=9)
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.says = {str(row["text"]): str(row["label"]) for row in rows}
    Path("target.yaml").write_text("{}")
    done = judge("--like", run.path)
    assert done.exit_code == 0, done.output
    found = verdict()["test"]
    assert found["metrics"]["accuracy"]["value"] == 1
    assert "accuracy" in found["baselines"]["in process"]["differences"]
    assert "log_loss" not in found["baselines"]["in process"]["differences"]
    assert "in_process/agreement" in found["suites"]["parity"]["measures"]


def test_stopped_it_asks_only_what_has_no_answer(judge: Judge, server: Chat) -> None:
    judge()
    whole = verdict()["test"]["metrics"]
    server.asked.clear()
    server.breaks_after = CHECKED + 20
    broken = judge("--overwrite", "--concurrency", "1")
    assert (broken.exit_code, "answers 500: it broke" in broken.output) == (2, True), broken.output
    assert len(server.asked) == CHECKED + 20
    server.breaks_after = None
    server.asked.clear()
    again = judge()
    assert (again.exit_code, "20 of 48 answers are from an earlier run" in flat(again)) == (0, True), again.output
    assert len(server.asked) == CHECKED + len(ROWS) - 20
    assert verdict()["test"]["metrics"] == whole


def test_answers_to_another_prompt_are_not_kept(judge: Judge, server: Chat) -> None:
    server.breaks_after = CHECKED + 20
    judge("--concurrency", "1")
    server.breaks_after = None
    target(chat={"prompt": "Good or bad: {text}"})
    done = judge()
    assert (done.exit_code, "with another mapping" in flat(done)) == (2, True), done.output


def test_a_server_that_is_busy_for_a_while_is_asked_again(judge: Judge, server: Chat) -> None:
    server.busy = 5
    assert judge().exit_code == 0
    assert verdict()["test"]["n"] == 48


def test_a_sample_that_is_refused_is_listed(judge: Judge, server: Chat) -> None:
    server.refuses = {"review 7"}
    done = judge()
    assert done.exit_code == 2
    assert re.search(r"refuses 1 of 48 samples.*data.jsonl.*maximum context length", flat(done)), done.output
    assert not Path("judged/metrics.json").exists()


def test_the_key_is_sent_and_never_told(judge: Judge, server: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = KEY
    assert judge("--key", KEY).exit_code == 0
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert judge("--overwrite").exit_code == 0
    assert not any(KEY in path.read_text(errors="replace") for path in Path("judged").iterdir())
    wrong = judge("--overwrite", "--key", "sk-wrong")
    assert wrong.exit_code == 2
    assert "answers 401: Incorrect API key provided: ….\n    → Give a key of the service" in wrong.output


def test_the_model_is_said_by_the_url_the_file_or_the_server(
    judge: Judge, server: Chat, listening_server: tuple[Chat, str]
) -> None:
    bare = listening_server[1]
    assert judge(url=bare).exit_code == 0
    server.models = ["parrot", "crow"]
    several = judge("--overwrite", url=bare)
    assert (several.exit_code, "names no model; it has parrot, crow" in several.output) == (2, True)
    target(chat={"model": "crow"})
    assert judge("--overwrite", url=f"{bare}/chat/completions").exit_code == 0
    assert server.asked[-1]["model"] == "crow"
    assert verdict()["target"] == f"{bare}#crow, version not told"
    unknown = judge("--overwrite", url=f"{bare}#owl")
    assert (unknown.exit_code, "answers 404: The model `owl` does not exist" in unknown.output) == (2, True)


def test_a_server_that_is_not_there_is_told(judge: Judge) -> None:
    done = judge("--deadline", "1", url="openai:http://127.0.0.1:9/v1#parrot")
    assert (done.exit_code, "cannot be reached" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chat": {"prompt": "Good or bad?"}}, r"names no role.*Write \{text\}, \{text_pair\}"),
        ({"chat": {"prompt": "{labels}?"}}, "names no role"),
        ({"chat": {"prompt": "{texts}"}}, r"there is no \{texts\} → Did you mean \{text\}"),
        ({"chat": {"prompt": "{text.upper}"}}, r"there is no \{text.upper\}"),
        ({"chat": {"prompt": "as {json: {text}"}}, r"chat.prompt: .* → Write \{\{ and \}\}|there is no \{json\}"),
        ({"chat": {"words": {"goood": "yes"}}}, "chat.words.goood: this is none of the labels → Did you mean good"),
        ({"chat": {"words": {"good": "Bad."}}}, "the labels 'bad' and 'good' are both answered by 'bad'"),
        ({"labels": ["C", "C++"]}, "the labels 'C' and 'C.*' are both answered by 'c'"),
        ({"labels": ["bad", ":)"]}, r"':\)', of which nothing is left once trimmed"),
        ({"labels": []}, "does not say its labels"),
        ({"chat": {"parameters": {"stream": True}}}, "chat.parameters.stream: the test bench says this itself"),
        ({"rename": {"positive": "good"}}, "rename: a server of the OpenAI protocol has no tensors"),
        ({"multi_label": True}, "any number of its labels may hold"),
        ({"task": "token-classification"}, "token-classification cannot be asked .*: tokens is no text"),
        ({"task": "image-classification"}, "image-classification cannot be asked .*: image is no text"),
        ({"chat": {"promt": "{text}"}}, "target.yaml:1: chat.promt"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is(
    judge: Judge, server: Chat, changes: dict[str, Any], says: str
) -> None:
    target(**changes)
    done = judge()
    assert done.exit_code == 2, done.output
    assert re.search(says, flat(done)), done.output
    assert not server.asked


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("openai:gpt", r"'gpt' is no address of a service\n.*Write openai:http://HOST:PORT/v1#MODEL"),
        ("openai:http://127.0.0.1:9/v2/models/m", "is the address of a v2 server"),
        ("openai:http://127.0.0.1:9/v1?version=3#m", r"more than a path\n.*openai:http"),
    ],
)
def test_an_address_that_is_none_is_told(judge: Judge, url: str, says: str) -> None:
    done = judge(url=url)
    assert done.exit_code == 2
    assert re.search(says, done.output), done.output


def test_one_sample_a_request_is_all_that_there_is(judge: Judge, server: Chat) -> None:
    done = judge("--batch-size", "4")
    assert (done.exit_code, "one sample a request" in done.output, server.asked) == (2, True, [])


def test_what_is_no_completion_is_told(judge: Judge, server: Chat) -> None:
    server.said = chat.JSONResponse({"generated_text": "good"})
    done = judge()
    assert (done.exit_code, "answers without a message: {'generated_text': 'good'}" in done.output) == (2, True)


def test_it_is_gated_compared_and_loaded_as_any_other(judge: Judge, server: Chat, listening_server: tuple[Chat, str]) -> None:
    Path("gate.yaml").write_text("rules: [{measure: accuracy, min: 0.5}]")
    url, arguments = f"{listening_server[1]}#parrot", ["--data", "data.jsonl", "--target", "target.yaml"]
    gated = CliRunner().invoke(cli.main, ["gate", url, "--gate", "gate.yaml", *arguments])
    assert gated.exit_code == 0, gated.output
    (folder,) = Path("evaluations").glob("served-parrot-*")
    assert (folder / "metrics.json").exists()
    short = ["--seconds", "1", "--warm-up", "0", "--clients", "2"]
    loaded = CliRunner().invoke(cli.main, ["loadtest", url, *arguments, *short])
    assert (loaded.exit_code, "requests a second" in loaded.output) == (0, True), loaded.output
    judge()
    same = CliRunner().invoke(cli.main, ["compare", "judged", str(folder)])
    assert same.exit_code == 0, same.output
