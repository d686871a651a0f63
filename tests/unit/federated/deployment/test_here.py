"""The site over the owner's own rows: what is wrong with them stays there, and the owner's number of rows counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.data import texts
from support.sites import RECIPE
from tunesmith.errors import DataError
from tunesmith.recipe.paths import AT_SITES
from tunesmith.tasks import load_task
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment.audit import DiskTrouble
from tunesmith_federated.deployment.copies import keep_last
from tunesmith_federated.deployment.group import alone
from tunesmith_federated.deployment.here import OwnData, OwnedSite
from tunesmith_federated.deployment.ledger import Ledger
from tunesmith_federated.deployment.owner import Owner
from tunesmith_federated.deployment.site_config import SiteConfig
from tunesmith_federated.methods import make_method
from tunesmith_federated.models import tensors_of, travelling
from tunesmith_federated.protocol import Ask
from tunesmith_federated.site import Site
from tunesmith_federated.work import Job

pytestmark = pytest.mark.unit


@pytest.fixture
def text(bert: Path) -> str:
    """A recipe as it travels."""
    return (
        f'task: text-classification\nmodel: {{model_name_or_path: {bert}}}\ndata: {{train: "{AT_SITES}"}}\n'
        "training: {num_train_epochs: 1, per_device_train_batch_size: 8, use_gpu: false}\nfederation: {min_examples: 2}\n"
    )


def write(folder: Path, header: str, rows: int) -> None:
    lines = [f"{row['text']},{row['label']}" for row in texts(rows, seed=1)]
    (folder / "rows.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def site(site_config: Callable[..., SiteConfig]) -> OwnedSite:
    config = site_config(allow="{recipes: any, base_models: any}", limits="{min_examples: 12}")
    return OwnedSite(Owner(config), Site("a", OwnData(config), config.state_dir / "jobs", worker=alone(config)))


def test_a_column_that_is_missing_is_told_to_the_owner_and_not_to_the_server(
    site: OwnedSite, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "secret_note,label", 20)
    ask = Ask("describe", "job", 0, 1, text, "", sites=2)
    refused = site.answer(ask, {}, {}).reply.refused
    assert refused == "the site's data does not fit this recipe; the site's log says how"
    assert "secret_note" in caplog.text
    recipe = asked_recipe.read(text)
    with pytest.raises(DataError, match="does not fit this recipe"):
        OwnData(site.owner.config).open(recipe, load_task(recipe.task))


def test_the_owners_number_of_rows_counts_where_it_is_larger(site: OwnedSite, text: str, tmp_path: Path) -> None:
    write(tmp_path, "text,label", 20)
    ask = Ask("describe", "job", 0, 1, text, "", sites=2)
    said = site.answer(ask, {}, {}).reply
    assert said.refused == ""
    labels = said.statistics["stats"]["labels"]
    assert all(count >= 12 for count in labels.values())
    few = OwnedSite(site.owner, site._inner).answer(replace(ask, sites=1), {}, {})
    assert "limits.least_cohort" in few.reply.refused
    assert [entry["event"] for entry in site.owner.audit.read()] == ["asked", "done", "asked", "refused"]


def test_a_full_disk_is_told_to_the_owner_and_is_no_refusal(
    site: OwnedSite, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    write(tmp_path, "text,label", 200)
    ask = Ask("describe", "job", 0, 1, text, "", sites=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, said in ((3000, "the site's disk does not take"), (0, "cannot write its audit log")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DiskTrouble, match=said) as caught:
                site.answer(ask, {}, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(tmp_path) not in str(caught.value)
        assert f"{tmp_path}/state" in caplog.text
    assert Ledger(site.owner.config.state_dir).used("job").seconds > 0, "what it took counts against limits.seconds"
    assert site.answer(ask, {}, {}).reply.refused == ""
    assert site.owner.audit.verify().broken is None


def written(folder: Path, **classes: int) -> None:
    """So many rows of each class."""
    lines = [f"{label} word{k},{label}" for label, count in classes.items() for k in range(count)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")


def test_one_class_is_told_and_trained_on_once_all_sites_classes_are_settled(
    site: OwnedSite, text: str, tmp_path: Path
) -> None:
    written(tmp_path, flu=30)
    ask = Ask("describe", "job", 0, 1, text, "", sites=2)
    said = site.answer(ask, {}, {}).reply
    assert (said.refused, said.statistics["stats"]["labels"]) == ("", {"flu": said.examples})
    settled = asked_recipe.for_sites(asked_recipe.read(text), ["cold", "flu"])
    again = site.answer(replace(ask, recipe=settled), {}, {}).reply
    assert (again.refused, again.examples) == ("", said.examples)


def test_a_class_that_the_sites_do_not_share_is_why_and_is_not_named(
    site: OwnedSite, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, cold=30, flu=30, secret=5)
    ask = Ask("describe", "job", 0, 1, text, "", sites=2)
    assert set(site.answer(ask, {}, {}).reply.statistics["stats"]["labels"]) == {"cold", "flu"}
    settled = asked_recipe.for_sites(asked_recipe.read(text), ["cold", "flu"])
    refused = site.answer(replace(ask, recipe=settled), {}, {}).reply.refused
    assert refused == "it has rows of a class that the sites do not share (data.labels); the site's log says which"
    assert "'secret'" in caplog.text


def test_of_a_recipes_lists_of_classes_the_last_two_have_rows(site: OwnedSite, text: str, tmp_path: Path) -> None:
    written(tmp_path, cold=30, flu=30)
    place = tmp_path / "state" / "prepared" / ".cache"
    recipe, copies = asked_recipe.read(text), list[set[str]]()
    for labels in (["cold", "flu"], ["cold", "flu", "x"], ["cold", "flu"], ["cold", "flu", "x", "y"]):
        travels = asked_recipe.for_sites(recipe, labels)
        answer = site.answer(Ask("describe", "job", 0, 1, travels, "", sites=2), {}, {})
        assert answer.reply.refused == ""
        copies.append({folder.name for folder in place.iterdir() if (folder / "manifest.json").exists()})
    assert [len(one) for one in copies] == [1, 2, 2, 2]
    assert copies[0] < copies[3], "what was used last stays"


def test_a_copy_that_another_recipe_uses_stays(tmp_path: Path) -> None:
    one = asked_recipe.read(RECIPE)
    other = asked_recipe.read(RECIPE.replace("1.0", "2.0"))
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    keep_last(tmp_path, other, folders[0])
    for folder in folders:
        keep_last(tmp_path, one, folder)
    assert [folder.exists() for folder in folders] == [True, False, True, True]
    (tmp_path / "copies.json").write_text("half a", encoding="utf-8")
    keep_last(tmp_path, one, folders[2])


def test_a_copy_that_is_half_removed_does_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, folders = asked_recipe.read(RECIPE), [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "manifest.json").write_text("{}", encoding="utf-8")

    def killed(place: str, **_: object) -> None:
        raise KeyboardInterrupt

    for folder in folders[:2]:
        keep_last(tmp_path, one, folder)
    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_last(tmp_path, one, folders[2])
    assert [(folder / "manifest.json").exists() for folder in folders] == [False, True, True]


def test_a_remembered_answer_is_given_again_though_the_job_has_had_its_trainings(
    site: OwnedSite, text: str, tmp_path: Path
) -> None:
    written(tmp_path, cold=30, flu=30)
    settled = asked_recipe.for_sites(asked_recipe.read(text), ["cold", "flu"])
    ask = Ask("train", "job", 1, 1, settled, "", sites=2)
    model, _ = Job(settled).base({"labels": ["cold", "flu"], "multi_label": False}).adapted()
    sent = tensors_of(model, travelling(model, make_method(asked_recipe.read(settled).federation)))
    first = site.answer(ask, sent, {})
    assert first.reply.steps > 0
    for _ in range(200):
        Ledger(site.owner.config.state_dir).charge("job", 0.0, 1, left=True)
    assert site.answer(ask, sent, {}) is first
    assert "repeats counted" in site.answer(replace(ask, counted=-1), sent, {}).reply.refused


def test_a_site_with_too_few_rows_says_so_before_round_1(site: OwnedSite, text: str, tmp_path: Path) -> None:
    written(tmp_path, cold=5, flu=5)
    refused = site.answer(Ask("describe", "job", 0, 1, text, "", sites=2), {}, {}).reply.refused
    assert "rows to train on, and reports nothing below 12" in refused


def test_training_ends_once_the_job_has_had_its_time(site_config: Callable[..., SiteConfig], text: str, tmp_path: Path) -> None:
    config = site_config(allow="{recipes: any, base_models: any}", limits="{seconds: 100}")
    written(tmp_path, cold=60, flu=60)
    settled = asked_recipe.for_sites(asked_recipe.read(text), ["cold", "flu"])
    ask, job = Ask("train", "job", 1, 1, settled, "", sites=2), Job(settled)
    site = OwnedSite(Owner(config), Site("a", OwnData(config), config.state_dir / "jobs", worker=alone(config)))
    model, _ = job.base({"labels": ["cold", "flu"], "multi_label": False}).adapted()
    sent = tensors_of(model, travelling(model, make_method(job.recipe.federation)))
    Ledger(config.state_dir).charge("job", 99.999)
    said = site.answer(ask, sent, {}).reply
    assert "had its time of this site (limits.seconds), and training was ended" in said.refused
    assert [entry["event"] for entry in site.owner.audit.read()] == ["asked", "refused"]
    assert "limits.seconds" in site.answer(replace(ask, round=2), sent, {}).reply.refused
    assert site.answer(replace(ask, job="other"), sent, {}).reply.steps > 0
