"""Each rule of the owner's word: what keeps to it is done, what breaks it is refused with a reason that names the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.sites import RECIPE
from tunesmith.recipe import yaml_tree
from tunesmith_federated import asked_recipe
from tunesmith_federated.deployment import policy, signatures
from tunesmith_federated.deployment.policy import Used, check
from tunesmith_federated.deployment.site_config import SiteConfig
from tunesmith_federated.protocol import PROTOCOL, Ask

pytestmark = pytest.mark.unit

KNOWN = asked_recipe.fingerprint(RECIPE)
ASK = Ask("train", "job-1", 1, 10, RECIPE, KNOWN, sites=3)
ALLOW = f"{{recipes: [{KNOWN}], base_models: [lab/*]}}"
Make = Callable[..., SiteConfig]


def test_what_keeps_to_every_rule_is_done(site_config: Make) -> None:
    assert check(ASK, site_config(allow=ALLOW), Used()) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipe": RECIPE.replace("1.0", "2.0")}, "is not among those that are allowed, and it came without a signature"),
        ({"recipe": "a: ["}, "the recipe cannot be read"),
        ({"recipe": "[1, 2]"}, "the recipe cannot be read"),
        ({"protocol": PROTOCOL + 1}, "install the same version on both"),
        ({"kind": "run-this"}, "is nothing that a site does"),
        ({"job": "../../etc"}, "the job's name is none"),
        ({"rounds": 101}, "limits.rounds"),
        ({"sites": 1}, "limits.least_cohort"),
        ({"sites": 0}, "does not declare how many sites"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(site_config: Make, change: dict[str, object], why: str) -> None:
    assert why in check(replace(ASK, **change), site_config(allow=ALLOW), Used())  # type: ignore[arg-type]


def test_the_fingerprint_that_the_server_names_is_not_believed(site_config: Make) -> None:
    forged = replace(ASK, recipe=RECIPE.replace("1.0", "2.0"), fingerprint=KNOWN)
    assert "not among those" in check(forged, site_config(allow=ALLOW), Used())


def test_where_nothing_is_allowed_nothing_is_done(site_config: Make) -> None:
    assert "allow.recipes" in check(ASK, site_config(), Used())
    assert "allow.base_models" in check(ASK, site_config(allow=f"{{recipes: [{KNOWN}]}}"), Used())


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        (RECIPE.replace("lab/base", "elsewhere/base"), "model.model_name_or_path"),
        (RECIPE.replace("lab/base", "lab/base, processor_name_or_path: x/tok"), "model.processor_name_or_path"),
    ],
)
def test_every_model_that_would_be_loaded_is_checked(site_config: Make, recipe: str, key: str) -> None:
    assert f"({key})" in check(replace(ASK, recipe=recipe), site_config(allow="{recipes: any, base_models: [lab/*]}"), Used())


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (RECIPE.replace("local_epochs: 1.0", "method: 'subprocess:Popen'"), "federation.method: subprocess:Popen"),
        (RECIPE + "training: {loss: subprocess.Popen, loss_args: {args: [touch, x]}}\n", "training.loss: subprocess.Popen"),
    ],
)
def test_any_recipe_does_not_mean_any_code(site_config: Make, recipe: str, told: str) -> None:
    config = site_config(allow="{recipes: any, base_models: any}")
    assert check(ASK, config, Used()) == ""
    assert f"loads code by name ({told})" in check(replace(ASK, recipe=recipe), config, Used())


@pytest.fixture
def signed(site_config: Make, tmp_path: Path) -> Callable[..., str]:
    """``signed(recipe, what, by, allow)``: what the site says of a recipe with a signature of ``what``."""

    def said(recipe: str = RECIPE, what: str = "", by: str = "board", allow: str = "recipes: []") -> str:
        keys = {name: tmp_path / f"{name}.key" for name in ("board", "stranger")}
        known = {name: signatures.make_signer(key) for name, key in keys.items()}
        config = site_config(allow=f"{{{allow}, base_models: any, signers: {{board: '{known['board']}'}}}}")
        line = signatures.sign(what or recipe, keys[by])
        return check(replace(ASK, recipe=recipe, signatures=[line]), config, Used())

    return said


def test_what_a_trusted_signer_has_signed_is_done(signed: Callable[..., str]) -> None:
    assert signed() == ""
    assert signed(allow=f"recipes: [{KNOWN}]", by="stranger") == ""  # by its fingerprint


def test_no_other_signature_allows_a_recipe_and_each_is_refused_by_its_reason(signed: Callable[..., str]) -> None:
    other = RECIPE.replace("1.0", "2.0")
    assert "is not one of this recipe" in signed(what=other)
    said = signed(by="stranger")
    assert "whoever signed it is not trusted here (ed25519:" in said
    assert "board" not in said + signed(what=other)  # the owner's names stay here


def test_a_recipe_that_loads_code_by_name_needs_its_signer(signed: Callable[..., str]) -> None:
    recipe = RECIPE.replace("local_epochs: 1.0", "method: 'subprocess:Popen'")
    assert signed(recipe) == signed(recipe, allow="recipes: any") == ""
    for allow in ("recipes: []", "recipes: any"):
        assert "not trusted here" in signed(recipe, by="stranger", allow=allow)


@pytest.mark.parametrize(
    "key",
    [
        "data.cache_dir=s3://elsewhere/rows",
        "data.known_faults=http://elsewhere/faults.csv",
        "data.validation=/home/me/rows.csv",
        "data.test=/home/me/rows.csv",
        "data.unlabelled.data=s3://elsewhere/rows",
        "training.replay.data=[/home/me/rows.csv]",
        "training.output_dir=/elsewhere",
        "training.report_to=[mlflow]",
        "evaluation.confidence=0.9",
    ],
)
def test_what_no_fingerprint_covers_is_not_asked_beside_an_allowed_recipe(site_config: Make, key: str) -> None:
    values = asked_recipe.read(RECIPE).override(key, check_paths=False).model_dump(mode="json", exclude_unset=True)
    ask = replace(ASK, recipe=yaml_tree.dump(values))
    config = site_config(allow=f"{{recipes: [{KNOWN}, {asked_recipe.fingerprint(ask.recipe)}], base_models: any}}")
    assert "not the server's to say at a site" in check(ask, config, Used())


def test_what_a_job_has_had_counts(site_config: Make) -> None:
    config = site_config(allow=ALLOW, limits="{rounds: 10, seconds: 60, epochs: 10}")
    done = Used(frozenset(range(2, 11)), 59.0, 9)
    assert check(ASK, config, done) == ""
    assert "limits.seconds" in check(ASK, config, replace(done, seconds=60.0))
    assert "limits.rounds" in check(replace(ASK, round=11), config, replace(done, rounds=frozenset(range(1, 11))))
    assert check(replace(ASK, round=10), config, replace(done, rounds=frozenset(range(1, 11)))) == ""  # made again, no more
    assert "limits.epochs" in check(ASK, site_config(allow=ALLOW, limits="{epochs: 9.5}"), Used())


def test_the_round_that_is_asked_for_counts_among_the_passes(site_config: Make) -> None:
    config, done = site_config(allow=ALLOW, limits="{epochs: 3}"), Used(frozenset({1, 2, 3}), 1.0, 3)
    assert check(replace(ASK, round=3, rounds=1), config, done) == ""
    assert "makes 4 passes" in check(replace(ASK, round=4, rounds=1), config, done)


def test_a_round_is_made_again_as_often_as_there_are_rounds_and_then_no_more(site_config: Make) -> None:
    again, rounds = replace(ASK, round=2, rounds=3), frozenset({1, 2, 3})
    for limits, told in (("{rounds: 3}", "limits.rounds"), ("{epochs: 3}", "limits.epochs")):
        config = site_config(allow=ALLOW, limits=limits)
        assert check(again, config, Used(rounds, 1.0, 5)) == ""
        assert "repeats counted" in check(again, config, Used(rounds, 1.0, 6))
        assert told in check(again, config, Used(rounds, 1.0, 6))
        assert check(again, config, Used(rounds, 1.0, 6), remembered=True) == ""
        assert check(replace(again, kind="evaluate", round=4), config, Used(rounds, 1.0, 6)) == ""


BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (RECIPE + BOMB, "anchors and aliases are not read at a site"),
        (RECIPE + "name: &n x\n", "anchors and aliases are not read at a site"),
        (RECIPE + "#" * 2**20, "a site reads 1,048,576 at most"),
        (RECIPE + f"x: {'[' * 60}{']' * 60}\n", "more than 50 levels"),
        (RECIPE + "name: a\nname: b\n", "the key stands twice"),
        (RECIPE.replace("1.0", f"1.0, rounds: 0x{'f' * 9000}"), "a value cannot be read"),
        (RECIPE + 'name: "\\UFFFFFFFF"\n', "a value cannot be read (OverflowError)"),
    ],
    ids=["bomb", "anchor", "long", "deep", "twice", "number", "letter"],
)
def test_a_recipe_is_looked_at_before_it_is_read(site_config: Make, recipe: str, told: str) -> None:
    said = check(replace(ASK, recipe=recipe), site_config(allow="{recipes: any, base_models: any}"), Used())
    assert told in said


def test_a_list_of_classes_ends_somewhere(site_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MOST_CLASSES", 3)
    config = site_config(allow=ALLOW)
    for count, told in ((3, ""), (4, "the recipe names 4 classes, and a site takes 3 at most")):
        travels = asked_recipe.for_sites(asked_recipe.read(RECIPE), [f"class {i}" for i in range(count)])
        config = site_config(allow=f"{{recipes: [{asked_recipe.fingerprint(travels)}], base_models: [lab/*]}}")
        assert check(replace(ASK, recipe=travels), config, Used()) == told


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("/models/a", True),
        ("/models/./a//b", True),
        ("/models/../home/me/private", False),
        ("file:///models/%2e%2e/home", False),
        ("s3://lab/base", True),
        ("s3://lab/../private", False),
        ("s3://lab/base?endpoint_override=elsewhere", False),
        ("hf://lab/base@refs/pr/7", False),
        ("hf://lab/base", True),
        ("s3://lab/own?region=eu", True),
    ],
)
def test_a_pattern_lets_in_no_other_place(site_config: Make, name: str, allowed: bool) -> None:
    config = site_config(allow="{recipes: any, base_models: [/models/*, 's3://lab/*', 'hf://lab/*', 's3://lab/own?region=eu']}")
    said = check(replace(ASK, recipe=RECIPE.replace("lab/base", f"'{name}'")), config, Used())
    assert ("allow.base_models" not in said) is allowed


@pytest.mark.parametrize(
    ("revision", "models", "any_recipe", "by_fingerprint"),
    [
        ("main", "[lab/*]", True, True),
        (COMMIT, "[lab/*]", False, True),
        ("refs/pr/7", "[lab/*]", False, False),
        ("v2", "[lab/*]", False, False),
        ("v2", "[lab/*, lab/base@v2]", True, True),
        ("v2", "[lab/base@v2]", True, True),
        ("main", "[lab/base@v2]", False, False),
        ("refs/pr/7", "any", True, True),
    ],
)
def test_a_name_is_allowed_at_the_revision_that_nobody_else_writes(
    site_config: Make, revision: str, models: str, any_recipe: bool, by_fingerprint: bool
) -> None:
    asked = RECIPE.replace("lab/base", f"lab/base, revision: '{revision}'")
    for recipes, done in (("any", any_recipe), (f"[{asked_recipe.fingerprint(asked)}]", by_fingerprint)):
        said = check(replace(ASK, recipe=asked), site_config(allow=f"{{recipes: {recipes}, base_models: {models}}}"), Used())
        assert (said == "") is done, said
        assert done or "allow.base_models" in said


def test_the_revision_of_an_augmenting_model_is_looked_at_too(site_config: Make) -> None:
    augment = "augment: [{name: mlm, model_name_or_path: lab/fills, revision: refs/pr/7}]"
    recipe = RECIPE.replace('train: "sites://"', f'train: "sites://", {augment}')
    said = check(replace(ASK, recipe=recipe), site_config(allow="{recipes: any, base_models: [lab/*]}"), Used())
    assert "'lab/fills' (data.augment.0.model_name_or_path) is asked for at the revision 'refs/pr/7'" in said
