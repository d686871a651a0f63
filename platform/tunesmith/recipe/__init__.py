"""The recipe: one YAML file, typed, checked in one go, and resolved in one place. Imports nothing heavy."""

from __future__ import annotations

from tunesmith.recipe.recipe import Recipe

__all__ = ["Recipe"]
