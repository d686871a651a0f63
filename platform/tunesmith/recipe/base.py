"""What every section of a recipe is: a frozen pydantic model that refuses unknown keys."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """One block of the recipe. Frozen, strict about its keys, and documented field by field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    CALLED: ClassVar[str] = "data set"
    """What one of a list of such sections is called where something is wrong with it."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """``true`` is no number, though Python says so; one word where a list is wanted is a list of one."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = set(alternatives(annotation))
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise PydanticCustomError("bool_for_number", "true and false are no numbers")
        shapes = {get_origin(kind) for kind in kinds}
        if isinstance(value, str) and str not in kinds and list in shapes:
            return [value]
        if value is None and type(None) not in kinds and str not in kinds and shapes & {list, dict}:
            return [] if list in shapes else {}
        return value


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself.

    >>> alternatives(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    if get_origin(annotation) in (Union, UnionType):
        return get_args(annotation)
    return (annotation,)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, or None for a plain value."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def variants_of(annotation: Any) -> dict[str, type[Section]]:
    """The sections that the elements of a list may be, by their ``name``; empty for a list of anything else, or no list."""
    if get_origin(annotation) is not list:
        return {}
    (inner,) = get_args(annotation)
    members = (section_of(_bare(member)) for member in alternatives(_bare(inner)))
    named = [member for member in members if member is not None and "name" in member.model_fields]
    literal = [member for member in named if get_origin(member.model_fields["name"].annotation) is Literal]
    return {get_args(member.model_fields["name"].annotation)[0]: member for member in literal}


def element_of(annotation: Any) -> type[Section] | None:
    """The section that elements of a list are, which a field takes beside other things; None where it takes no such list."""
    lists = (_bare(kind) for kind in alternatives(annotation))
    inner = (section_of(get_args(kind)[0]) for kind in lists if get_origin(kind) is list)
    return next((section for section in inner if section is not None), None)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
