"""Which of the user's columns is which role of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.errors import DataError, nearest
from tunesmith.tasks.base import Column, Task


def match(found: Sequence[str], task: Task, said: Mapping[str, str], where: str, need_target: bool = True) -> dict[str, str]:
    """The column of each role: as ``data.columns`` says, else by the role's usual names, whatever their case.

    Roles that are not required are left out where no column fits. ``where`` names the data in messages.
    Raises :class:`DataError` for a role or column that does not exist, one column for two roles, and a role without a column.
    """
    _check_said(found, task, said, where)
    by_lower = {name.lower(): name for name in reversed(found)}
    chosen = dict(said)
    for role, column in task.columns.items():
        if role in chosen:
            continue
        taken = set(chosen.values())
        names = [role, *column.aliases]
        exact = next((name for name in names if name in found and name not in taken), None)
        loose = next((by_lower[n.lower()] for n in names if n.lower() in by_lower and by_lower[n.lower()] not in taken), None)
        if exact or loose:
            chosen[role] = exact or str(loose)
    lacking = [role for role, column in task.columns.items() if role not in chosen and _needed(role, column, task, need_target)]
    if lacking:
        raise _lacks(lacking[0], found, task, chosen, where)
    return {role: chosen[role] for role in task.columns if role in chosen}


def _needed(role: str, column: Column, task: Task, need_target: bool) -> bool:
    return need_target if role == task.target else column.required


def _check_said(found: Sequence[str], task: Task, said: Mapping[str, str], where: str) -> None:
    """That ``data.columns`` names roles and columns that exist, and no column twice."""
    for role, name in said.items():
        if role not in task.columns:
            close = nearest(role, task.columns)
            hint = f"Did you mean {close!r}?" if close else f"Its roles are {', '.join(task.columns)}."
            raise DataError(f"data.columns.{role}: {task.name} has no role {role!r}\n    → {hint}")
        if name not in found:
            close = nearest(name, found)
            hint = f"Did you mean {close!r}? " if close else ""
            raise DataError(
                f"data.columns.{role}: {where} has no column {name!r}\n    → {hint}Its columns are {_listed(found)}."
            )
    for role, name in said.items():
        other = next((r for r, n in said.items() if n == name and r != role), None)
        if other is not None:
            raise DataError(
                f"data.columns: {name!r} cannot be both {role!r} and {other!r}\n    → Name one column for each role."
            )


def _lacks(role: str, found: Sequence[str], task: Task, chosen: Mapping[str, str], where: str) -> DataError:
    column = task.columns[role]
    free = [name for name in found if name not in chosen.values()]
    close = next((near for near in (nearest(name, free) for name in (role, *column.aliases)) if near), None)
    example = close or (free[0] if free else "COLUMN")
    return DataError(
        f"{where} has no column for the role {role!r} ({column.description}) of {task.name}: its columns are {_listed(found)}"
        f"\n    → Say which it is: data.columns: {{{role}: {example}}}. It is found by itself under the names "
        f"{', '.join(dict.fromkeys((role, *column.aliases)))}."
    )


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown or "(none)"
