"""Options made from the parameters of a flow: each field becomes one, with its type, default and words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dn2.errors import ConfigError
from dn2.fields import BASIC, PLACE, Config, Mark, Typed, explain, marks

EXPERT = "Expert options"  # the panel of those that few need
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log and, on errors, the traceback.")]
Path = tuple[str, ...]  # names of fields, from the parameters down
M = TypeVar("M", bound=Config)


@dataclass(frozen=True, slots=True)
class Option:
    """An option or argument of a command.

    Attributes:
        name: as it is typed, with its dashes; of an argument, its field's name.
        paths: the fields that it sets; all of one name and kind.
        kind: of its value.
        default: what the fields have without it; None also where they differ in that.
        required: whether it must be given.
        words: what it is.
        is_argument: whether it is one.
        is_basic: whether a command shows it first.
        is_place: whether it is a path or URL.
    """

    name: str
    paths: tuple[Path, ...]
    kind: Any
    default: Any
    required: bool
    words: str
    is_argument: bool
    is_basic: bool
    is_place: bool

    @property
    def identifier(self) -> str:
        """Its name in Python."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def parameter(self) -> inspect.Parameter:
        """The parameter of a function from which typer makes it."""
        kind = self.kind if self.required or self.default is not None else self.kind | None
        told: Any = typer.Argument(help=self.words, show_default=False)
        if not self.is_argument:
            panel = None if self.is_basic else EXPERT
            told = typer.Option(self.name, help=self.words, show_default=self._shows_default, rich_help_panel=panel)
        default = inspect.Parameter.empty if self.required else self.default
        return inspect.Parameter(
            self.identifier, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, told]
        )

    @property
    def _shows_default(self) -> bool:
        return self.default is not None and self.kind is not bool


def options_of(model: type[Config]) -> tuple[Option, ...]:
    """Return the options of a command that runs with these parameters: the arguments, basic ones, then the others.

    Fields of one name in several groups are one option, which sets all of them.
    """
    found: dict[str, Option] = {}
    for option in _walk(model, None, ()):
        first = found.setdefault(option.name, option)
        if first is not option:
            default = first.default if first.default == option.default else None
            found[option.name] = replace(first, paths=(*first.paths, *option.paths), default=default)
    return tuple(sorted(found.values(), key=lambda one: (not one.is_argument, not one.is_basic)))


def _walk(model: type[Config], group: Config | None, above: Path) -> Iterator[Option]:
    """Yield an option for each field of a model and of those in it.

    Args:
        model: parameters, or a group of settings.
        group: where the defaults stand, if they are not those of the model.
        above: the path that leads to it.
    """
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if group is None else getattr(group, name)
        path, kind = (*above, name), _plain(field.annotation)
        if isinstance(kind, type) and issubclass(kind, Config):
            yield from _walk(kind, default, path)
        else:
            yield _option(path, field, kind, default)


def _option(path: Path, field: FieldInfo, kind: Any, default: Any) -> Option:
    typed = next(marks(field, Typed), Typed(f"--{path[-1].replace('_', '-')}"))
    is_argument = typed.option is None
    told = set(marks(field, Mark))
    return Option(
        name=typed.option or path[-1],
        paths=(path,),
        kind=kind,
        default=None if field.is_required() else default,
        required=field.is_required(),
        words=field.description or "",
        is_argument=is_argument,
        is_basic=BASIC in told,
        is_place=PLACE in told,
    )


def _plain(kind: Any) -> Any:
    """Return a field's type without None and what else its annotation says: these are the model's to check."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    inner = [_plain(one) for one in get_args(kind) if one is not NoneType]
    if NoneType in get_args(kind) and len(inner) == 1:
        return inner[0]
    return list[str] if get_origin(kind) in (list, tuple) else kind


def signature_of(options: Sequence[Option]) -> inspect.Signature:
    """Return the signature of a function from which typer makes a command with these options."""
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VERBOSE)
    return inspect.Signature([*(option.parameter for option in options), verbose])


def parameters_from(model: type[M], options: Sequence[Option], typed: Mapping[str, Any]) -> M:
    """Return parameters made of what was typed; fields of which nothing was said keep their default.

    Args:
        model: the parameters.
        options: of the command.
        typed: value of each option, by its name in Python.

    Raises:
        ConfigError: a value cannot work; the message names the option.
    """
    values: dict[str, Any] = {}
    for option in options:
        value = typed[option.identifier]
        if value is None:
            continue
        value = absolute(value) if option.is_place else value
        for path in option.paths:
            if option.required or not option.default == value == _own_default(model, path):
                *groups, name = path
                inner = values
                for group in groups:
                    inner = inner.setdefault(group, {})
                inner[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, {path: option.name for option in options for path in option.paths})) from None


def _own_default(model: type[Config], path: Path) -> Any:
    """Return the default of a field where its group is given: that of the group's model."""
    for name in path[:-1]:
        model = _plain(model.model_fields[name].annotation)
    return model.model_fields[path[-1]].get_default(call_default_factory=True)


def as_typed(text: str, options: Sequence[Option]) -> str:
    """Return a message in which fields are called as they are typed: --far, not false_alarm_rate.

    Only words are replaced that stand for nothing else: those with an underscore, not in a path or in brackets, and the
    one with a colon behind it that a message begins with.
    """
    for option in options:
        for name in {path[-1] for path in option.paths} if not option.is_argument else ():
            if "_" in name:
                text = re.sub(rf"(?<![\w./'(-]){name}(?![\w./'-])", option.name, text)
            text = re.sub(rf"\A{name}:", f"{option.name}:", text)
    return text


def absolute(url: str) -> str:
    """Return a path or URL as an absolute URI: a flow may run in another folder than this one."""
    from dn2.store.files import locate

    return locate(url).uri
