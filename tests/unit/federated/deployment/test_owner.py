"""The owner's hand: nothing is done that is not written down, and nothing leaves that rests on too few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.sites import RECIPE
from tunesmith.errors import UserError
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment import owner as owning
from tunesmith_federated.deployment import signatures
from tunesmith_federated.deployment.audit import DiskTrouble
from tunesmith_federated.deployment.owner import Owner
from tunesmith_federated.deployment.site_config import VARIABLE, SiteConfig
from tunesmith_federated.protocol import Ask, Reply

pytestmark = pytest.mark.unit

KNOWN = asked_recipe.fingerprint(RECIPE)
ASK = Ask("train", "job-1", 1, 10, RECIPE, KNOWN, sites=3)
ALLOW = f"{{recipes: [{KNOWN}], base_models: [lab/*]}}"
Make = Callable[..., SiteConfig]


def reply(ask: Ask = ASK, examples: int = 40, seconds: float = 2.0, refused: str = "") -> Reply:
    return Reply("a", ask.kind, ask.job, ask.round, examples=examples, seconds=seconds, sent_bytes=1000, refused=refused)


def events(owner: Owner) -> list[str]:
    return [entry["event"] for entry in owner.audit.read()]


def test_what_is_asked_and_done_is_written_down_with_its_bytes(site_config: Make) -> None:
    owner = Owner(site_config(allow=ALLOW))
    assert owner.refusal(ASK, 5000) == ""
    assert owner.done(ASK, reply()) == ""
    asked, done = owner.audit.read()
    assert (asked["event"], asked["received_bytes"], asked["recipe"]) == ("asked", 5000, KNOWN)
    assert (done["event"], done["examples"]) == ("done", 40)
    assert done["sent_bytes"] > 1000
    assert owner.audit.verify().broken is None


def test_a_refused_recipe_lies_there_to_be_read_and_allowed(site_config: Make) -> None:
    owner = Owner(site_config())
    assert KNOWN in owner.refusal(ASK, 0)
    assert events(owner) == ["asked", "refused"]
    assert (owner.config.state_dir / "asked" / f"{KNOWN}.yaml").read_text(encoding="utf-8") == RECIPE


HALF = "\ud800"
ODD = [
    replace(ASK, recipe=RECIPE + 'training: {optim_args: {a: "\\ud800"}}\n'),
    replace(ASK, recipe=f"{RECIPE}training: {{optim_args: {{a: .inf}}}}\n"),
    replace(ASK, recipe=f"{RECIPE}# {HALF}\n"),
    replace(ASK, recipe=RECIPE + 'name: "\\UFFFFFFFF"\n'),
    replace(ASK, recipe=RECIPE + 'name: "\\U00110000"\n'),
    replace(ASK, recipe=f"%YAML {'9' * 5000}.1\n---\n{RECIPE}"),
    replace(ASK, job=HALF),
    replace(ASK, signatures=[HALF]),
]


@pytest.mark.parametrize("ask", ODD, ids=["recipe", "number", "comment", "letter", "no letter", "version", "job", "signature"])
def test_what_cannot_be_read_is_refused_and_written_down_all_the_same(
    site_config: Make, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Owner(site_config(allow="{base_models: any}"))
    assert owner.refusal(ask, 0)
    assert caplog.text.encode()  # which half a letter has none of
    assert events(owner) == ["asked", "refused"]
    assert owner.audit.verify().broken is None


def test_what_fails_in_the_reading_is_written_down_before_it_does(site_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str) -> str:
        raise SystemError(text)

    monkeypatch.setattr(asked_recipe, "fingerprint", fails)
    owner = Owner(site_config(allow=ALLOW))
    with pytest.raises(SystemError):
        owner.refusal(ASK, 0)
    (asked,) = owner.audit.read()
    assert (asked["event"], asked["recipe"]) == ("asked", "unreadable")


def test_an_update_that_rests_on_too_few_rows_does_not_leave(site_config: Make) -> None:
    owner = Owner(site_config(allow=ALLOW))
    owner.refusal(ASK, 0)
    assert "reports nothing below 10" in owner.done(ASK, reply(examples=3))
    assert events(owner) == ["asked", "refused"]


def test_seconds_and_rounds_count_over_restarts(site_config: Make) -> None:
    config = site_config(allow=ALLOW, limits="{seconds: 3}")
    for _ in range(2):
        assert Owner(config).refusal(ASK, 0) == ""
        Owner(config).done(ASK, reply())
    assert "limits.seconds" in Owner(config).refusal(ASK, 0)


def test_seconds_that_came_to_nothing_count_too(site_config: Make) -> None:
    owner = Owner(site_config(allow=ALLOW, limits="{seconds: 3}"))
    owner.failed(ASK, ValueError("of rows"), 2.0)
    assert owner.refusal(ASK, 0) == ""
    owner.in_the_way(ASK, 2.0)
    assert "has had 4 s of this site" in owner.refusal(ASK, 0)
    assert owner.refusal(replace(ASK, job="job-2"), 0) == ""
    owner.config.state_dir.rename(owner.config.state_dir.with_name("away"))
    owner.config.state_dir.write_text("a file where the folder should be", encoding="utf-8")
    owner.in_the_way(ASK, 1.0)  # the disk is in the way of this as well


def test_what_is_asked_fills_no_disk(site_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owning, "MOST_ASKED", 3)
    owner, asked = Owner(site_config()), [RECIPE.replace("1.0", f"0.{number}") for number in range(1, 6)]
    for recipe in [*asked[:3], asked[0], *asked[3:]]:
        owner.refusal(replace(ASK, recipe=recipe), 0)
    kept = {file.read_text(encoding="utf-8") for file in (owner.config.state_dir / "asked").iterdir()}
    assert kept == {asked[0], asked[3], asked[4]}, "those that were asked last"
    owner.refusal(replace(ASK, job="j" * 10**6), 0)
    owner.refusal(replace(ASK, recipe=RECIPE + f"{'k' * 10**5}: 1\n"), 0)
    assert max(len(line) for line in owner.audit.path.read_bytes().splitlines()) < 5000
    assert owner.audit.verify().broken is None


def test_a_training_that_left_counts_as_often_as_it_was_made(site_config: Make) -> None:
    owner = Owner(site_config(allow=ALLOW, limits="{rounds: 1}"))
    ask = replace(ASK, rounds=1)
    for _ in range(3):
        owner.done(ask, reply(refused="there are no rows"))  # nothing has left
    for _ in range(2):
        assert Owner(owner.config).refusal(ask, 0) == ""
        assert owner.done(ask, reply()) == ""
    assert "has trained 2 times, repeats counted" in owner.refusal(ask, 0)
    assert owner.refusal(ask, 0, remembered=True) == ""


def test_without_a_log_nothing_is_done(site_config: Make) -> None:
    owner = Owner(site_config(allow=ALLOW))
    owner.config.state_dir.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(DiskTrouble, match="cannot write its audit log, and does nothing without it"):
        owner.refusal(ASK, 0)


def test_who_signed_what_was_asked_is_written_down(site_config: Make, tmp_path: Path) -> None:
    board = signatures.make_signer(tmp_path / "board.key")
    owner = Owner(site_config(allow=f"{{signers: {{the-board: '{board}'}}, base_models: any}}"))
    assert owner.refusal(replace(ASK, signatures=[signatures.sign(RECIPE, tmp_path / "board.key")]), 0) == ""
    (asked,) = owner.audit.read()
    assert asked["signer"] == "the-board"


def test_a_process_without_a_site_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match="answers for no site"):
        Owner.here()
