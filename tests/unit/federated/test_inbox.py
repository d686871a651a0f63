"""What has come is still there when the server is started again, whole or not at all, whatever its site is called."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from tunesmith.errors import UserError
from tunesmith_federated.aggregate import mean, mean_of_extras
from tunesmith_federated.bundle import Bundle
from tunesmith_federated.inbox import Inbox
from tunesmith_federated.protocol import Reply

pytestmark = pytest.mark.unit


def reply(site: str, examples: int = 10) -> Reply:
    return Reply(site=site, kind="train", job="job", round=3, examples=examples, steps=2, sums={"n": 5})


def put(inbox: Inbox, said: Reply, update: dict[str, torch.Tensor], extras: dict[str, torch.Tensor] | None = None) -> None:
    inbox.put(said, Bundle.of(update), Bundle.of(extras or {}))


def test_a_server_started_again_finds_what_had_come(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "round" / "inbox")
    update = {"w": torch.tensor([1.0, 2.0]), "h": torch.tensor([0.5], dtype=torch.bfloat16)}
    put(inbox, reply("lyon"), update, {"c": torch.ones(2)})
    put(inbox, reply("oslo", 30), {"w": torch.tensor([5.0, 6.0]), "h": torch.zeros(1)}, {"c": torch.zeros(2)})
    again = Inbox(tmp_path / "round" / "inbox")
    assert again.sites() == ["lyon", "oslo"]
    assert again.reply("lyon") == reply("lyon")
    assert again.update("lyon")["h"].dtype == torch.bfloat16
    assert again.update("lyon").tensor("h").dtype == torch.float32
    assert sorted(again.update("lyon").load()) == ["h", "w"]
    parameters = {"w": torch.zeros(2), "h": torch.zeros(1)}
    assert mean([again.update(site) for site in again.sites()], parameters)["w"].tolist() == [4.0, 5.0]
    assert mean_of_extras([again.extras(site) for site in again.sites()])["c"].tolist() == [0.5, 0.5]
    with pytest.raises(KeyError):
        again.update("lyon").tensor("nothing")
    with pytest.raises(KeyError):
        again.reply("rome")


@pytest.mark.parametrize("left", ["cut", "zeros", "other", "not begun", "longer"])
def test_what_a_power_cut_left_is_cut_off_and_what_stands_before_it_counts(tmp_path: Path, left: str) -> None:
    place = tmp_path / "inbox"
    inbox = Inbox(place)
    put(inbox, reply("lyon"), {"w": torch.ones(40)})
    sound = place.stat().st_size
    put(inbox, reply("oslo"), {"w": torch.ones(40)})
    whole = place.read_bytes()
    place.write_bytes(
        {
            "cut": whole[:-4],
            "zeros": whole[: sound + 60] + bytes(len(whole) - sound - 60),  # as what the disk had not yet taken
            "other": whole[:-200] + b"x" + whole[-199:],
            "not begun": whole[: sound + 7],
            "longer": whole[:sound] + b"\xff" * 300,
        }[left]
    )
    again = Inbox(place)
    assert again.sites() == ["lyon"]
    assert place.stat().st_size == sound
    put(again, reply("oslo", 7), {"w": torch.zeros(40)})
    last = Inbox(place)
    assert last.sites() == ["lyon", "oslo"]
    assert (last.reply("oslo").examples, last.update("oslo")["w"].sum().item(), last.update("lyon").norm) == (7, 0, 40**0.5)


def test_a_rejected_reply_is_gone(tmp_path: Path) -> None:
    place = tmp_path / "inbox"
    inbox = Inbox(place)
    put(inbox, reply("lyon"), {"w": torch.ones(1)})
    put(inbox, reply("oslo"), {"w": torch.ones(1)})
    assert inbox.update("lyon")["w"].item() == 1
    inbox.reject("lyon")
    inbox.reject("nobody")
    for one in (inbox, Inbox(place)):
        assert one.sites() == ["oslo"]
    put(inbox, reply("lyon"), {"w": torch.full((1,), 7.0)})
    assert Inbox(place).sites() == ["lyon", "oslo"]
    assert Inbox(place).update("lyon")["w"].item() == 7
    inbox.clear()
    assert Inbox(place).sites() == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_dead_takes_no_more_of_the_disk_than_what_lives_and_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_federated.inbox._MOST_DEAD", 10_000)
    place = tmp_path / "inbox"
    inbox = Inbox(place)
    for k, site in enumerate(["lyon", "oslo"]):
        put(inbox, reply(site), {"w": torch.full((1000,), float(k))}, {"c": torch.full((3,), float(k))})
    live = place.stat().st_size
    sizes = []
    for k in range(20):
        put(inbox, reply("rome", k + 1), {"w": torch.full((1000,), 7.0 + k)})
        put(inbox, reply("oslo", k + 1), {"w": torch.full((1000,), 9.0 + k)})
        sizes.append(place.stat().st_size)
        for one in (inbox, Inbox(place)):
            assert one.sites() == ["lyon", "oslo", "rome"]
            assert [one.update(site)["w"].unique().tolist() for site in one.sites()] == [[0.0], [9.0 + k], [7.0 + k]]
            assert one.extras("lyon")["c"].tolist() == [0.0] * 3
            assert one.reply("rome").examples == k + 1
        inbox.reject("rome")
        assert Inbox(place).sites() == ["lyon", "oslo"]
    assert max(sizes) < 3 * live + 10_000
    assert list(tmp_path.iterdir()) == [place]


def test_a_disk_that_is_full_takes_no_half_reply(tmp_path: Path) -> None:
    place = tmp_path / "inbox"
    inbox = Inbox(place)
    put(inbox, reply("lyon"), {"w": torch.ones(1000)})
    sound = place.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sound + 50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="inbox"):
            put(inbox, reply("oslo"), {"w": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert place.stat().st_size == sound
    assert inbox.sites() == ["lyon"]
    put(inbox, reply("rome"), {"w": torch.ones(1000)})
    assert Inbox(place).sites() == ["lyon", "rome"]


def test_a_second_reply_takes_the_place_of_the_first(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "inbox")
    put(inbox, reply("lyon", 1), {"w": torch.ones(1)})
    first = inbox.update("lyon")["w"]
    put(inbox, reply("lyon", 2), {"w": torch.zeros(1)})
    assert inbox.update("lyon")["w"].item() == 0
    assert inbox.update("lyon").examples == 2
    assert first.item() == 1


def test_tied_and_strided_tensors_are_kept_as_they_are(tmp_path: Path) -> None:
    inbox, base = Inbox(tmp_path / "inbox"), torch.arange(6.0).reshape(2, 3)
    put(inbox, reply("lyon"), {"a": base.T, "b": base, "c": base, "n": torch.tensor(3)})
    held = inbox.update("lyon")
    assert torch.equal(held["a"], base.T)
    assert torch.equal(held["c"], base)
    assert held["n"].item() == 3


@pytest.mark.parametrize("site", ["../x", "/etc/passwd", "..", ".", "", "a/b\\c", "x" * 500, "Zürich 🏥", "con\x00trol", "~"])
def test_a_site_may_have_any_name(tmp_path: Path, site: str) -> None:
    place = tmp_path / "inner" / "round"
    put(Inbox(place), reply(site), {"w": torch.ones(1)})
    assert Inbox(place).sites() == [site]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [place]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Inbox(tmp_path / "file" / "inbox")
