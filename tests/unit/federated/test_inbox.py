"""What has come is still there when the server is started again, and no site's name leads out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import UserError
from tunesmith_federated.aggregate import mean, mean_of_extras
from tunesmith_federated.inbox import Inbox, file_name
from tunesmith_federated.protocol import Reply

pytestmark = pytest.mark.unit


def reply(site: str, examples: int = 10) -> Reply:
    return Reply(site=site, kind="train", job="job", round=3, examples=examples, steps=2, sums={"n": 5})


def test_a_server_started_again_finds_what_had_come(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "round")
    update = {"w": torch.tensor([1.0, 2.0]), "h": torch.tensor([0.5], dtype=torch.bfloat16)}
    inbox.put(reply("lyon"), update, {"c": torch.ones(2)})
    inbox.put(reply("oslo", 30), {"w": torch.tensor([5.0, 6.0]), "h": torch.zeros(1)}, {"c": torch.zeros(2)})
    (tmp_path / "round" / ".half.reply.safetensors.tmp").write_bytes(b"half")
    (tmp_path / "round" / f"rome{'.reply.safetensors'}").write_bytes(b"cut short")
    inbox.put(reply("bonn"), update, {})
    cut = next(path for path in (tmp_path / "round").iterdir() if path.name.startswith("bonn"))
    cut.write_bytes(cut.read_bytes()[:-4] + bytes(4))  # as a power cut leaves what the disk had not yet taken
    again = Inbox(tmp_path / "round")
    assert again.sites() == ["lyon", "oslo"]
    assert again.reply("lyon") == reply("lyon")
    assert len(list((tmp_path / "round").iterdir())) == 2
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


def test_a_rejected_reply_is_gone_and_its_reason_is_not(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.put(reply("lyon"), {"w": torch.ones(1)}, {})
    inbox.put(reply("oslo"), {"w": torch.ones(1)}, {})
    assert inbox.update("lyon")["w"].item() == 1
    inbox.reject("lyon", "w holds NaN")
    for one in (inbox, Inbox(tmp_path)):
        assert one.sites() == ["oslo"]
        assert one.rejected() == {"lyon": "w holds NaN"}
    inbox.put(reply("lyon"), {"w": torch.full((1,), 7.0)}, {})
    assert Inbox(tmp_path).sites() == ["lyon", "oslo"]
    assert Inbox(tmp_path).rejected() == {}
    inbox.clear()
    assert Inbox(tmp_path).sites() == []
    assert list(tmp_path.iterdir()) == []


def test_a_second_reply_takes_the_place_of_the_first(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    inbox.put(reply("lyon", 1), {"w": torch.ones(1)}, {})
    first = inbox.update("lyon")["w"]
    inbox.put(reply("lyon", 2), {"w": torch.zeros(1)}, {})
    assert inbox.update("lyon")["w"].item() == 0
    assert inbox.update("lyon").examples == 2
    assert first.item() == 1


def test_tied_and_strided_tensors_are_kept_as_they_are(tmp_path: Path) -> None:
    inbox, base = Inbox(tmp_path), torch.arange(6.0).reshape(2, 3)
    inbox.put(reply("lyon"), {"a": base.T, "b": base, "c": base, "n": torch.tensor(3)}, {})
    held = inbox.update("lyon")
    assert torch.equal(held["a"], base.T)
    assert torch.equal(held["c"], base)
    assert held["n"].item() == 3


@pytest.mark.parametrize("site", ["../x", "/etc/passwd", "..", ".", "", "a/b\\c", "x" * 500, "Zürich 🏥", "con\x00trol", "~"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, site: str) -> None:
    folder = tmp_path / "inner" / "round"
    Inbox(folder).put(reply(site), {"w": torch.ones(1)}, {})
    assert Inbox(folder).sites() == [site]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != folder] == []


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_sites_have_different_files(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert len(file_name(one)) < 200
    assert "/" not in file_name(one)
    assert not file_name(one).startswith(".")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Inbox(tmp_path / "file")
