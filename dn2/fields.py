"""What a field of a setting says of itself: what it names, how it is typed, and what came before it existed."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from dn2.errors import ConfigError

T = TypeVar("T")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200


@dataclass(frozen=True, slots=True)
class Names:
    """Where a field counts. A field without this mark is part of the name of every result that is made with it.

    Attributes:
        what: is named by it, in words.
    """

    what: str


NOTHING = Names("nothing")  # no result depends on it
EMBEDDER = Names("the embedder")  # and with it everything that is embedded
SLICES = Names("the shards, by their rows")
LAST = Names("version or report only")  # what is made last, not the vectors or scores below it


@dataclass(frozen=True, slots=True)
class Neutral:
    """What was done before a field existed. Of a result that is made with this value the name is as it was before.

    It never changes, whatever becomes of the default.

    Attributes:
        value: as JSON has it.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Typed:
    """How a field is typed on a command line.

    Attributes:
        option: with its dashes; by default made from the field's name. None: it is an argument.
    """

    option: str | None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something else that a field says of itself."""

    what: str


ARGUMENT = Typed(None)
BASIC = Mark("one of the first options that a command shows")
PLACE = Mark("a path or URL: a relative one is taken from where the command is typed")


def marks(field: FieldInfo, kind: type[T]) -> Iterator[T]:
    """Yield the marks of a kind that a field has."""
    yield from (mark for mark in field.metadata if isinstance(mark, kind))


class Config(BaseModel):
    """A frozen group of settings that refuses unknown fields, and numbers that JSON has no word for."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, defer_build=True)

    def identity(self, *, without: Collection[Names] = ()) -> dict[str, Any]:
        """Return what names a result that is made with these settings, as JSON values by field.

        Left out are the fields that are marked, unless as LAST, and those that have their neutral value.

        Args:
            without: marks of further fields that are left out.
        """
        found, written = {}, self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            named = next(marks(field, Names), None)
            if named in {NOTHING, EMBEDDER, SLICES, *without}:
                continue
            value = getattr(self, name)
            told = value.identity(without=without) if isinstance(value, Config) else written[name]
            if not any(told == neutral.value for neutral in marks(field, Neutral)):
                found[name] = told
        return found

    @classmethod
    def reread(cls, content: Any) -> Self:
        """Return settings as they were written down, perhaps when some fields did not exist yet: those are neutral.

        Args:
            content: the fields that were known.

        Raises:
            pydantic.ValidationError: they are no settings of this kind.
        """
        if isinstance(content, dict):
            neutral = {name: mark.value for name, field in cls.model_fields.items() for mark in marks(field, Neutral)}
            content = {**neutral, **content}
        return cls.model_validate(content)


def short(value: Any) -> str:
    """Return a value as Python writes it, cut where it is long or nested."""
    return _SHORT.repr(value)


def explain(error: ValidationError, typed: Mapping[tuple[str, ...], str] | None = None) -> ConfigError:
    """Turn a pydantic error into one line that names each bad field, what was given and what is expected.

    Args:
        error: what is wrong.
        typed: what fields are called where the values were typed, by path, such as --far: it is named first.
    """
    lines = []
    for item in error.errors():
        path = tuple(part for part in item["loc"] if isinstance(part, str))
        place = ".".join(str(part) for part in item["loc"]) or "parameters"
        option = (typed or {}).get(path)
        if option is not None:
            place = option if option.lstrip("-").replace("-", "_") == place else f"{option} ({place})"
        if item["type"] != "value_error":
            lines.append(f"{place} = {short(item['input'])}: {item['msg']}")
            continue
        text = str(item["ctx"]["error"])  # our own, which names what was given
        for field, name in (typed or {}).items():
            if field[:-1] == path:  # of all fields of the group
                text = re.sub(rf"\b{field[-1]}\b", name, text)
        lines.append(f"{place}: {text}")
    return ConfigError("; ".join(lines))
