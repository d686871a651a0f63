"""The JSON Schema of a recipe, for editors that complete and check YAML."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.recipe import hf_names, task_names
from tunesmith.recipe.explain import for_people
from tunesmith.recipe.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SUMMARY = "What is fine-tuned, on what, how, and how it is judged."
FILE_NAME = "tunesmith.schema.json"
"""The name under which ``tunesmith schema --out`` is expected, and ``tunesmith init`` finds it."""


def json_schema() -> dict[str, Any]:
    """What :meth:`Recipe.load` takes, as JSON Schema, with the description of every key.

    >>> json_schema()["properties"]["task"]["examples"]
    ['image-classification', 'text-classification', 'token-classification']
    """
    schema = Recipe.model_json_schema()
    _tidy(schema)
    _require_rows(schema)
    schema["properties"]["task"]["examples"] = list(task_names.TASKS)
    training = schema["$defs"]["TrainingSection"]["properties"]
    training["lr_scheduler_type"]["enum"] = list(hf_names.SCHEDULES)
    training["optim"]["examples"] = [*hf_names.OPTIMIZERS, *hf_names.TORCH_OPTIMIZERS]
    return {"$schema": DIALECT, **schema, "title": "Tunesmith recipe", "description": SUMMARY}


def render() -> str:
    """The schema as the text of a file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _require_rows(schema: dict[str, Any]) -> None:
    """``data.train`` must be given where there is no ``federation:``, whose sites may have the rows."""
    schema["$defs"]["DataSection"]["required"].remove("train")
    schema["required"].remove("data")
    here = {"required": ["data"], "properties": {"data": {"required": ["train"]}}}
    schema["anyOf"] = [here, {"required": ["federation"]}]


def _tidy(node: Any) -> None:
    """Descriptions on one line with Markdown's quotes; a list of words may also be one word, as the recipe takes it."""
    if isinstance(node, list):
        for child in node:
            _tidy(child)
    if not isinstance(node, dict):
        return
    for child in node.values():
        _tidy(child)
    if isinstance(node.get("description"), str):
        node["description"] = for_people(node["description"])
    for field in node["properties"].values() if isinstance(node.get("properties"), dict) else ():
        if field.get("type") == "array" and field.get("items", {}).get("type") == "string":
            field["anyOf"] = [{"type": field.pop("type"), "items": field["items"]}, field.pop("items")]
