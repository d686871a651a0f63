"""Signed recipes: what a signature is of, and that nothing else passes for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from support.sites import RECIPE
from tunesmith.cli import main
from tunesmith.errors import UserError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks import load_task
from tunesmith.training.progress import Progress
from tunesmith.verbs import console
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment import signatures
from tunesmith_federated.federate import _Making, federated

pytestmark = pytest.mark.unit

OTHER = RECIPE.replace("1.0", "2.0")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signatures.make_signer(tmp_path / "board.key")
    return tmp_path / "board.key"


@pytest.fixture
def trusted(key: Path) -> dict[str, str]:
    return {"board": signatures.make_signer(key)}


def test_a_signer_is_made_once_and_read_by_its_owner_alone(key: Path) -> None:
    before = key.read_bytes()
    assert signatures.is_signer(signatures.make_signer(key))
    assert key.read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_signature_is_of_its_recipe_by_its_signer(key: Path, trusted: dict[str, str], tmp_path: Path) -> None:
    line = signatures.sign(RECIPE, key)
    assert signatures.signed_by(RECIPE, [line], trusted) == "board"
    assert signatures.signed_by(OTHER, [line], trusted) is None
    assert signatures.signed_by(RECIPE, [line], {"board": signatures.make_signer(tmp_path / "other.key")}) is None
    assert signatures.signed_by(RECIPE, [], trusted) is None


def test_classes_may_be_settled_and_the_run_named_after_it_was_signed(key: Path, trusted: dict[str, str]) -> None:
    settled = RECIPE.replace('{train: "sites://"}', '{train: "sites://", labels: [flu, cold]}') + "name: run-7\n"
    assert settled.count("labels") == 1
    assert signatures.signed_by(settled, [signatures.sign(RECIPE, key)], trusted) == "board"


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan"])
def test_a_number_that_is_none_in_json_does_not_pass_for_nothing(number: str) -> None:
    text = f"{RECIPE}training: {{optim_args: {{betas: [0.9, {number}]}}}}\n"
    with pytest.raises(UserError, match=r"training\.optim_args\.betas\.1: found -?(inf|nan)"):
        asked_recipe.covered(text)
    with pytest.raises(UserError, match="does not travel"):
        asked_recipe.for_sites(asked_recipe.read(text))


def damaged(line: str) -> list[str]:
    scheme, signer, signature = line.split(":")
    swapped = ("B" if signature[0] != "B" else "C") + signature[1:]
    return [
        f"{scheme}:{signer}:{swapped}",
        f"{scheme}:{signer}:{signature[:-4]}",
        f"{scheme}:{signer}:!{signature[1:]}",
        f"{scheme}:{signer}:",
        f"{scheme}:{signer}",
        f"ssh-ed25519:{signer}:{signature}",
        f"{line}:more",
        "",
        ":" * 1000,
    ]


@pytest.mark.parametrize("which", range(9))
def test_a_damaged_signature_is_none(key: Path, trusted: dict[str, str], which: int) -> None:
    line = signatures.sign(RECIPE, key)
    assert signatures.signed_by(RECIPE, [damaged(line)[which]], trusted) is None
    assert signatures.signed_by(RECIPE, [damaged(line)[which], line], trusted) == "board"


def test_what_the_same_key_has_signed_for_another_purpose_is_no_signature(key: Path, trusted: dict[str, str]) -> None:
    private = load_pem_private_key(key.read_bytes(), None)
    for text in (RECIPE.encode(), asked_recipe.covered(RECIPE)):
        forged = f"{trusted['board']}:{signatures._written(private.sign(text))}"  # type: ignore[union-attr, call-arg]
        assert signatures.signed_by(RECIPE, [forged], trusted) is None


def test_of_many_signatures_only_the_first_are_looked_at(key: Path, trusted: dict[str, str]) -> None:
    line = signatures.sign(RECIPE, key)
    assert signatures.signed_by(RECIPE, [*[""] * (signatures.MOST - 1), line], trusted) == "board"
    assert signatures.signed_by(RECIPE, [*[""] * signatures.MOST, line], trusted) is None


def test_what_a_site_was_asked_may_be_signed_as_it_lies_there() -> None:
    own = Recipe.from_dict(
        {
            "task": "text-classification",
            "model": {"model_name_or_path": "lab/base"},
            "data": {"train": "rows.csv", "cache_dir": "/tmp/x", "split": {"validation": 0.3}},
            "training": {"num_train_epochs": 4, "output_dir": "elsewhere", "report_to": "mlflow"},
            "federation": {"holdout": 0.3},
        },
        check_paths=False,
    )
    travels = asked_recipe.for_sites(own, ["flu", "cold"])
    assert asked_recipe.beyond(asked_recipe.read(travels)) == []
    again = asked_recipe.for_sites(asked_recipe.read(travels))
    assert asked_recipe.covered(again) == asked_recipe.covered(travels) == asked_recipe.covered(asked_recipe.for_sites(own))


def test_signatures_of_several_lie_beside_the_recipe_and_a_stale_one_is_named(tmp_path: Path, key: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    place = str(tmp_path / "recipe.yaml")
    signatures.make_signer(tmp_path / "other.key")
    for one in (key, key, tmp_path / "other.key"):
        done = CliRunner().invoke(main, ["federation", "sign", place, "--key", str(one)])
        assert done.exit_code == 0, done.output
    found = signatures.of(Recipe.load(place), None)
    signers = [signatures.make_signer(tmp_path / f"{name}.key") for name in ("board", "other")]
    assert [signatures.signer(line) for line in found] == signers
    with pytest.raises(UserError, match=r"recipe\.yaml\.sig: what ed25519:.* signed is not this recipe as it is now"):
        signatures.of(Recipe.load(place, ["training.seed=7"]), None)
    assert CliRunner().invoke(main, ["federation", "sign", place, "training.seed=7", "--key", str(key)]).exit_code == 0
    assert len(signatures.of(Recipe.load(place, ["training.seed=7"]), None)) == 1  # the other one's is worth nothing now


def test_a_run_keeps_its_signatures_to_be_gone_on_with(tmp_path: Path, key: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("lab/base", str(tmp_path / "base")), encoding="utf-8")
    recipe = federated(Recipe.load(str(tmp_path / "recipe.yaml"), check_paths=False))
    line = signatures.sign(asked_recipe.for_sites(recipe), key)
    run = Run.create(recipe, ["tunesmith", "federate"], str(tmp_path / "run"))
    with pytest.raises(UserError), Progress(console.err()) as progress:  # no federation is there, and may be up later
        _Making(recipe, load_task(recipe.task), run, progress).deploy(str(tmp_path / "none"), 1.0, [line])
    assert signatures.of(federated(Recipe.load(run.file("recipe.yaml"), check_paths=False)), None) == [line]


def test_a_recipe_without_signatures_has_none(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    recipe = Recipe.load(str(tmp_path / "recipe.yaml"))
    assert signatures.of(recipe, None) == []
    with pytest.raises(UserError, match="cannot be read"):
        signatures.of(recipe, str(tmp_path / "none.sig"))
    (tmp_path / "bad.sig").write_text("\nnonsense\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.sig:2: this is no signature"):
        signatures.of(recipe, str(tmp_path / "bad.sig"))


def test_a_key_of_another_kind_does_not_sign(tmp_path: Path, made: Path) -> None:
    with pytest.raises(UserError, match=r"no key of a signer"):
        signatures.sign(RECIPE, made / "ca" / "ca.key")
    with pytest.raises(UserError, match=r"none\.key is not there\n    → `tunesmith federation signer"):
        signatures.sign(RECIPE, tmp_path / "none.key")
