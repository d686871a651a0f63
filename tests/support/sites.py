"""What tests of real sites share."""

from __future__ import annotations

RECIPE = """\
task: text-classification
model: {model_name_or_path: lab/base}
data: {train: "sites://"}
federation: {local_epochs: 1.0}
"""
"""As it travels: without places of data."""
