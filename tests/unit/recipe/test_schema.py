"""The exported JSON Schema takes what the recipe takes."""

from __future__ import annotations

import pytest
import yaml

from tunesmith.recipe import Recipe
from tunesmith.recipe.keys import leaves
from tunesmith.recipe.schema import json_schema
from tunesmith.recipe.task_names import KNOWN
from tunesmith.recipe.template import template

jsonschema = pytest.importorskip("jsonschema")


def test_it_is_a_schema_with_a_description_of_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    described = sum(
        "description" in field for section in [schema, *schema["$defs"].values()] for field in section["properties"].values()
    )
    assert described >= len(list(leaves(Recipe)))


@pytest.mark.parametrize("task", KNOWN)
def test_templates_fit_it(task: str) -> None:
    jsonschema.validate(yaml.safe_load(template(task)), json_schema())


@pytest.mark.parametrize(
    "training", [{"lerning_rate": 1}, {"seed": "x"}, {"lr_scheduler_type": "cosin"}, {"report_to": "mlfow"}]
)
def test_mistakes_do_not(training: dict[str, object]) -> None:
    values = yaml.safe_load(template("text-classification")) | {"training": training}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json_schema())


def test_a_resolved_recipe_fits_it() -> None:
    values = {"task": "text-classification", "model": {"model_name_or_path": "a/b"}, "data": {"train": "hf://a/b"}}
    recipe = Recipe.from_dict({**values, "training": {"report_to": "mlflow"}})
    jsonschema.validate(yaml.safe_load(recipe.to_yaml()), json_schema())
    jsonschema.validate(yaml.safe_load(recipe.resolved().to_yaml()), json_schema())
    jsonschema.validate({**values, "training": {"report_to": "mlflow"}}, json_schema())


def test_rows_are_required_where_no_federation_has_them() -> None:
    values = {"task": "text-classification", "model": {"model_name_or_path": "a/b"}}
    for rows in ({}, {"data": {}}, {"data": {"test": "held.csv"}}):
        jsonschema.validate({**values, **rows, "federation": {}}, json_schema())
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, **rows}, json_schema())
