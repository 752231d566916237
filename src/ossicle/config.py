"""Settings: pydantic models are the schema, YAML is an instance, `a.b=c` overrides it.

Every mistake is one line that says what, where (file and line), what was expected, and the nearest right name.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ossicle.errors import ConfigError
from ossicle.registry import suggest


class Section(BaseModel):
    """Base of every settings model: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


S = TypeVar("S", bound=Section)


def validate(model: type[S], values: dict[str, Any], *, where: str) -> S:
    """Return the checked settings.

    Args:
        model: The schema.
        values: Plain mapping, as YAML or JSON gives it.
        where: What is being read, for the message.

    Raises:
        ConfigError: With the dotted key, what was expected and the nearest right name.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first mistake of a failed validation as one clause."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {suggest(str(first['loc'][-1]), _fields_at(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"'{key}' is missing"
    detail = first["msg"].removeprefix("Value error, ")
    return f"'{key}' is {first['input']!r}: {detail}" if key else detail


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the settings model nested at a location of a validation error."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(here, "model_fields", {}).get(part)
        if field is None:
            continue
        here = next((a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(a)), here)
    return list(here.model_fields)


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
