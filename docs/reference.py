"""Makes docs/reference.md from the code: columns of Parquet files, settings, options of commands. `make reference`."""

from __future__ import annotations

import importlib
import pkgutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
from prefect import Flow
from pydantic.fields import FieldInfo

import dn2.config
import flows
from dn2.fields import Config, Names, marks
from dn2.store.schema import Schema
from dn2.store.schemas import SCHEMAS
from flows.cli.app import COMMANDS
from flows.cli.options import Option
from flows.sources_file import SourcesFile

PAGE = Path(__file__).parent / "reference.md"

_OPENING = """# Reference

Made from the code by `make reference`. In prose: [the store](store.md), [settings](settings.md).

## Parquet files

Each file carries the name and version of its schema in the footer
([files that explain themselves](store.md#files-that-explain-themselves)), and each column its description: in Arrow's
words, the field's metadata `description`. Embeddings have the length of their embedder.
"""
_SETTINGS = """## Settings

Groups of settings, as the library, Prefect and the sources file take them. The last column says what a field is part of
the name of: another value makes another one of it ([what changes a result](settings.md#what-changes-a-result)).
"""
_PARAMETERS = """## Parameters of the flows

Each flow takes one parameter, `parameters`, that holds these fields.
"""
_COMMANDS = """## Commands

The options of each command, which set fields of the parameters of its flow; `--verbose` is one of all. Those in the
first lines are shown first by `--help`.
"""
_SOURCES = """## Sources file

What [nightly runs and drops](nightly.md#the-sources-file) are told, in YAML.
"""
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_ARROW = {"string": "text", "halffloat": "float16", "float": "float32", "double": "float64", "bool": "true or false"}
_SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def make_page() -> str:
    """Return the whole page."""
    takers = parameters_of_flows()
    groups = [model for model in _reached([*takers.values(), SourcesFile]) if model not in takers.values()]
    of_file = [model for model in groups if model.__module__ == SourcesFile.__module__]
    own = list(vars(dn2.config).values())  # in the order of the file
    settings = [model for model in groups if model not in of_file]
    settings.sort(key=lambda model: own.index(model) if model in own else len(own))
    parts = [_OPENING, *map(section_of_schema, SCHEMAS), _SETTINGS]
    parts += [section_of_model(model, names=model in own) for model in settings]
    parts += [_PARAMETERS, *(section_of_model(model, flow) for flow, model in takers.items())]
    parts += [_COMMANDS, *(section_of_command(name, options) for name, options in COMMANDS.items())]
    parts += [_SOURCES, *map(section_of_model, of_file)]
    return "\n".join(parts)


def section_of_schema(schema: Schema) -> str:
    """Return what the page says of one kind of Parquet file."""
    lines = [f"### {schema.name}", "", f"{schema.row} Version {schema.version}, in `{schema.path}`.", ""]
    lines += ["| column | type | null | what it holds |", "|---|---|---|---|"]
    for field in schema.columns:
        null = "may be" if field.nullable else "never"
        lines.append(f"| `{field.name}` | {arrow_words(field.type)} | {null} | {schema.describe(field.name)} |")
    return "\n".join([*lines, ""])


def section_of_model(model: type[Config], flow: str = "", *, names: bool = False) -> str:
    """Return what the page says of one model of settings, the flow that takes it, if one does, and what it names."""
    title = f"### {model.__name__}" + (f" of {flow}" if flow else "")
    lines = [title, "", (model.__doc__ or "").strip(), ""]
    lines.append("| field | values | default | what it is |" + (" it names |" if names else ""))
    lines.append("|---|---|---|---|" + ("---|" if names else ""))
    for name, field in model.model_fields.items():
        values = ", ".join([words(field.annotation), *limits_of(field)])
        line = f"| `{name}` | {values} | {default_of(field)} | {field.description} |"
        named = next((mark.what for mark in marks(field, Names)), "all made with it")
        lines.append(f"{line} {named} |" if names else line)
    return "\n".join([*lines, ""])


def section_of_command(name: str, options: tuple[Option, ...]) -> str:
    """Return what the page says of one command."""
    lines = [f"### dn2 {name}", "", "| option | default | sets |", "|---|---|---|"]
    for option in options:
        typed = f"`{option.name.upper()}`" if option.is_argument else f"`{option.name}`"
        default = "must be given" if option.required else "none" if option.default is None else f"`{option.default}`"
        fields = ", ".join(f"`{'.'.join(path)}`" for path in option.paths)
        lines.append(f"| {typed} | {default} | {fields} |")
    return "\n".join([*lines, ""])


def parameters_of_flows() -> dict[str, type[Config]]:
    """Return the parameters' model of every flow, by the flow's name."""
    found = {}
    for module in pkgutil.iter_modules(flows.__path__):
        for one in vars(importlib.import_module(f"flows.{module.name}")).values():
            if isinstance(one, Flow):
                found[one.name] = get_type_hints(one.fn)["parameters"]
    return dict(sorted(found.items()))


def arrow_words(kind: pa.DataType) -> str:
    """Return an Arrow type in words."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {arrow_words(kind.value_type)}"
    return _ARROW.get(str(kind), str(kind))


def words(kind: Any) -> str:
    """Return the type of a field in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(words(one) for one in inner)
    if origin in (list, tuple):
        return f"list of {words(inner[0])}"
    if kind is types.NoneType:
        return "none"
    return f"[{kind.__name__}](#{kind.__name__.lower()})" if issubclass(kind, Config) else _WORDS[kind]


def limits_of(field: FieldInfo) -> Iterator[str]:
    """Yield the limits of a field's values in words."""
    for limit in field.metadata:
        yield from (f"{sign} {getattr(limit, name):,}" for name, sign in _SIGNS.items() if hasattr(limit, name))
        if hasattr(limit, "min_length"):
            yield "not empty" if limit.min_length == 1 else f"{limit.min_length} or longer"
        if getattr(limit, "pattern", None):
            yield f"as `{limit.pattern}`"


def default_of(field: FieldInfo) -> str:
    """Return a field's default in words."""
    if field.is_required():
        return "must be given"
    default = field.get_default(call_default_factory=True)
    if default is None or default == ():
        return "none"
    if isinstance(default, Config):
        changed = default.model_dump(exclude_defaults=True)
        return ", ".join(f"`{name}` `{value}`" for name, value in changed.items()) or "its defaults"
    return f"`{default}`".lower() if isinstance(default, bool) else f"`{default}`"


def _reached(models: list[type[Config]]) -> list[type[Config]]:
    """Return models and those of their fields, each once."""
    found: list[type[Config]] = []
    for model in models:
        if model in found:
            continue
        below = [kind for field in model.model_fields.values() for kind in _models_in(field.annotation)]
        found += [one for one in [model, *_reached(below)] if one not in found]
    return found


def _models_in(kind: Any) -> Iterator[type[Config]]:
    if isinstance(kind, type) and issubclass(kind, Config):
        yield kind
    for inner in get_args(kind):
        yield from _models_in(inner)


if __name__ == "__main__":
    PAGE.write_text(make_page(), "utf-8")
