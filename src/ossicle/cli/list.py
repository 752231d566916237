"""`ossicle list WHAT`: the parts, recipes, tasks and models there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption

app = typer.Typer()

ROOMS = {
    "encoders": "encoders",
    "connectors": "connectors",
    "integrations": "integration",
    "mixtures": "mixtures",
    "objectives": "training.objectives",
}


@app.command()
def command(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="What to list; without a right one, all are named.")],
    json: JsonOption = False,
) -> None:
    """List encoders, connectors, integrations, mixtures, objectives, sources, datasets, recipes, tasks or models.

    Example: ossicle list encoders
    """
    from ossicle.errors import ConfigError, suggest

    kinds = [*ROOMS, "sources", "datasets", "recipes", "tasks", "models"]
    if what not in kinds:
        raise ConfigError(f"list '{what}': nothing of that name; {suggest(what, kinds)}")
    items = _items(what)
    width = max((len(item["name"]) for item in items), default=0)
    text = "\n".join(f"{item['name']:<{width}}  {item['about']}".rstrip() for item in items)
    output.emit({"items": items}, json=json, text=text)


def _items(what: str) -> list[dict[str, Any]]:
    if what == "recipes":
        return _recipes()
    if what == "models":
        return _models()
    if what == "tasks":
        return _tasks()
    if what == "datasets":
        return _datasets()
    if what == "sources":
        from ossicle.data.source import source_class, source_kinds

        return [{"name": kind, "about": _about(source_class(kind))} for kind in source_kinds()]
    from ossicle import registry

    room = ROOMS[what]
    return [{"name": name, "about": _about(registry.lookup(room, name))} for name in sorted(registry.names(room))]


def _about(part: Any) -> str:
    """Return the first line of a part's docstring."""
    return (part.__doc__ or "").strip().split("\n")[0]


def _recipes() -> list[dict[str, Any]]:
    import yaml

    from ossicle.training.recipe import find, shipped

    about = {name: yaml.safe_load(find(name).read_text(encoding="utf-8")) for name in shipped()}
    return [{"name": name, "about": values.get("description", "")} for name, values in about.items()]


def _datasets() -> list[dict[str, Any]]:
    from ossicle.data.adapters import NAMES
    from ossicle.data.adapters.table import find, shipped

    layouts = [find(name) for name in shipped()]
    items = [
        {"name": s.name, "about": f"{s.about} · {s.licence or 'licence not stated'} · layout: {s.layout} · {s.page}",
         "layout": s.layout, "licence": s.licence, "page": s.page}
        for s in layouts
    ]  # fmt: skip
    generic = [name for name in NAMES if name not in shipped()]
    return items + [{"name": name, "about": "generic layout", "layout": "verified"} for name in generic]


def _models() -> list[dict[str, Any]]:
    from ossicle.inference.engine import BUNDLED, bundled

    present = {name: (bundled(name) / "config.json").is_file() for name in BUNDLED}
    return [
        {"name": name, "present": here, "about": "ships with ossicle" if here else "not in this installation"}
        for name, here in present.items()
    ]


def _tasks() -> list[dict[str, Any]]:
    from pathlib import Path

    import yaml

    from ossicle import evaluation

    folder = Path(str(evaluation.__file__)).parent / "tasks"
    about = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}
    return [{"name": name, "about": str(values.get("about", ""))} for name, values in about.items()]
