"""Settings: pydantic models are the schema, YAML is an instance, `a.b=c` overrides it.

    defaults in the schema  <  base: other.yaml  <  recipe.yaml  <  a.b=c on the command line

Every mistake is one line that says what, where (file and line), what was expected, and the nearest right name. One
level of `base:`: a file named as a base may not have a base itself. Mappings merge key by key, lists are replaced
whole; an override reaches into a list by index (`stages.0.steps=10`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ossicle.errors import ConfigError, suggest

Location = tuple[int | str, ...]


class Section(BaseModel):
    """Base of every settings model: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


S = TypeVar("S", bound=Section)


@dataclass(slots=True)
class Document:
    """Plain values as YAML gives them, and where each of them was written.

    Attributes:
        values: Nested mappings, lists and scalars.
        places: Location of a value to `file:line` or to the override that set it.
        name: What to call the whole thing in a message.
    """

    values: dict[str, Any]
    places: dict[Location, str] = field(default_factory=dict)
    name: str = "settings"

    def place(self, location: Location) -> str:
        """Return where the value at a location, or the nearest one around it, was written."""
        for end in range(len(location), -1, -1):
            if location[:end] in self.places:
                return self.places[location[:end]]
        return self.name

    def check(self, model: type[S], values: Any = None, *, at: Location = ()) -> S:
        """Return the checked settings of the whole document, or of `values` found at a location inside it.

        Raises:
            ConfigError: With file and line, the key, what was expected and the nearest right name.
        """
        whole = self.values if values is None else values
        if not isinstance(whole, dict):
            raise ConfigError(f"{self.place(at)}: '{dotted(at)}' is {whole!r}, expected keys with values")
        try:
            return model.model_validate(whole)
        except ValidationError as error:
            location = at + tuple(error.errors()[0]["loc"])
            raise ConfigError(f"{self.place(location)}: {explain(error, model, at=at)}") from None
        except ConfigError as error:  # from a part nested inside that checks itself
            raise ConfigError(f"{self.place(at)}: {error}") from None

    def set(self, override: str) -> None:
        """Apply one bare override `a.b=c`; the value is read as YAML.

        Raises:
            ConfigError: No `=`, an index outside its list, or a key below something that holds no keys.
        """
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override '{override}': expected key=value, for example stages.0.steps=10")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            raise ConfigError(f"override '{override}': the value is not YAML; put quotes around it") from None
        here: Any = self.values
        location: Location = ()
        parts = key.strip().split(".")
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            step = _step(here, part, override)
            location = (*location, step)
            if last:
                here[step] = value
            elif isinstance(here, dict) and here.get(step) is None:
                here[step] = {}
            here = here[step]
        self.places = {place: text for place, text in self.places.items() if place[: len(location)] != location}
        self.places[location] = f"override '{override}'"


def _step(here: Any, part: str, override: str) -> int | str:
    """Return the key or index that one dotted part names in what has been reached so far."""
    if isinstance(here, dict):
        return part
    if isinstance(here, list):
        if not part.lstrip("-").isdigit() or not -len(here) <= int(part) < len(here):
            raise ConfigError(
                f"override '{override}': '{part}' is no index of a list of {len(here)} (0 to {len(here) - 1})"
            )
        return int(part) % len(here)
    raise ConfigError(f"override '{override}': '{part}' is below {here!r}, which holds no keys")


def read(path: Path, *, find_base: Callable[[str, Path], Path] | None = None) -> Document:
    """Return the values of a YAML file, merged over its `base:`, and where each was written.

    Args:
        path: The file.
        find_base: (name, file that names it) → file; by default the name is a path relative to that file.

    Raises:
        ConfigError: Not there, not YAML, a duplicate key, or a base that has a base.
    """
    document = _read_one(path)
    base = document.values.pop("base", None)
    if base is None:
        return document
    place = document.places.pop(("base",))
    if not isinstance(base, str):
        raise ConfigError(f"{place}: 'base' is {base!r}, expected the name of one file")
    base_path = find_base(base, path) if find_base else path.parent / base
    if not base_path.is_file():
        raise ConfigError(f"{place}: base '{base}' is not there ({base_path})")
    below = _read_one(base_path)
    if "base" in below.values:
        raise ConfigError(f"{below.place(('base',))}: a base may not have a base itself; it is the base of {path}")
    values, places = dict(below.values), dict(below.places)
    _merge(values, document.values, (), places)
    return Document(values, {**places, **document.places}, str(path))


def _merge(below: dict[str, Any], above: dict[str, Any], at: Location, places: dict[Location, str]) -> None:
    """Lay one mapping over another in place; what a list or scalar replaces loses its places."""
    for key, value in above.items():
        here = (*at, key)
        if isinstance(value, dict) and isinstance(below.get(key), dict) and _same_kind(below[key], value):
            below[key] = dict(below[key])
            _merge(below[key], value, here, places)
        else:
            below[key] = value
            for place in [place for place in places if place[: len(here)] == here]:
                del places[place]


def _same_kind(below: dict[str, Any], above: dict[str, Any]) -> bool:
    """Another `kind` replaces a part whole: settings of the old kind mean nothing to the new one."""
    return "kind" not in above or above["kind"] == below.get("kind")


def load(model: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Return checked settings from a YAML file and overrides.

    Raises:
        ConfigError: One line naming file and line.
    """
    document = read(path)
    for override in overrides:
        document.set(override)
    return document.check(model)


def from_overrides(model: type[S], overrides: Sequence[str], *, name: str) -> S:
    """Return checked settings from overrides `a.b=c` of the defaults.

    Args:
        model: The schema.
        overrides: Applied in order.
        name: Where they come from, for the message.

    Raises:
        ConfigError: One line.
    """
    document = Document({}, name=name)
    for override in overrides:
        document.set(override)
    return document.check(model)


def dump(section: BaseModel) -> str:
    """Return settings as YAML that gives the same settings again: the resolved config, every default written out."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def dotted(location: Sequence[int | str]) -> str:
    """Return a location as it is written in an override.

    Example:
        >>> dotted(("stages", 0, "steps"))
        'stages.0.steps'
    """
    return ".".join(str(part) for part in location)


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


def explain(error: ValidationError, model: type[BaseModel], *, at: Location = ()) -> str:
    """Return the first mistake of a failed validation as one clause."""
    first = error.errors()[0]
    key = dotted(at + tuple(first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {suggest(str(first['loc'][-1]), _fields_at(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"'{key}' is missing"
    detail = first["msg"].removeprefix("Value error, ")
    return f"'{key}' is {first['input']!r}: {detail}" if first["loc"] else detail


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the settings model nested at a location of a validation error."""
    here: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        found = getattr(here, "model_fields", {}).get(part)
        if found is not None:
            here = next(iter(_models_in(found.annotation)), here)
    return list(here.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings models inside an annotation such as `dict[str, list[Stage]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]


SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's loader of plain values: libyaml's, ten times as fast, where PyYAML was built with it."""


class _Loader(SafeLoader):  # type: ignore[misc, valid-type]
    """YAML, with `1e-4` read as a number (YAML 1.1 reads it as text)."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _read_one(path: Path) -> Document:
    """Return one YAML file without following `base:`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    loader = _Loader(text)
    places: dict[Location, str] = {(): str(path)}
    try:
        node = loader.get_single_node()
        values = {} if node is None else _value(loader, node, (), path, places)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{path}:1: expected keys with values, got {type(values).__name__}")
    return Document(values, places, str(path))


def _value(loader: Any, node: Any, at: Location, path: Path, places: dict[Location, str]) -> Any:
    """Return the plain value of a YAML node and note the line of every key below it."""
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, child in enumerate(node.value):
            places[(*at, index)] = f"{path}:{child.start_mark.line + 1}"
            items.append(_value(loader, child, (*at, index), path, places))
        return items
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    mapping: dict[str, Any] = {}
    for key_node, child in node.value:
        key, line = str(loader.construct_object(key_node)), f"{path}:{key_node.start_mark.line + 1}"
        if key in mapping:
            raise ConfigError(f"{line}: key '{dotted((*at, key))}' is given twice, first at {places[(*at, key)]}")
        places[(*at, key)] = line
        mapping[key] = _value(loader, child, (*at, key), path, places)
    return mapping
