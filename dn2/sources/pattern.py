"""What a file's path says about its image: a pattern tells which parts of it are the group and the label."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dn2.errors import ConfigError
from dn2.sources.globs import root_of
from dn2.sources.opening import kind_named
from dn2.sources.packs import MARK

FIELDS = ("group_id", "label")
_EXAMPLE = "{label}/{group_id}/*"
_LONGEST = 500  # characters
_MOST = 20  # fields and stars
_TOKEN = re.compile(r"\{[^{}]*\}|\*+|[^{}*]+|[{}]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the paths of a source are read.

    Attributes:
        text: as it was given.
        fields: names of its fields, in their order.
        expression: the same as a regular expression with one group for each field.
    """

    text: str
    fields: tuple[str, ...]
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern that a text describes.

        `{group_id}` and `{label}` stand for one or more characters without a slash, `*` for any characters without a
        slash, `**` for any characters; everything else stands for itself. From left to right, each takes as few as
        the rest allows. The values of several `{group_id}` are joined by slashes.

        Raises:
            ConfigError: it is none: empty, too long, with a slash in front, without a field, with an unknown one, with
                two labels, too many stars and fields, or a brace without its other half.
        """
        tokens = ["**" if token.startswith("**") else token for token in _TOKEN.findall(text)]
        fields = tuple(token[1:-1] for token in tokens if len(token) > 1 and token[0] == "{")
        wrong = _wrong(text, tokens, fields)
        if wrong:
            raise ConfigError(f"pattern {text[:100]!r}: got {wrong}; it is written like {_EXAMPLE!r}")
        return cls(text, fields, re.compile(_expression(tokens)))

    def match(self, path: str) -> tuple[str | None, str | None] | None:
        """Return the group and the label that a path tells, or None where the pattern does not fit all of it.

        Args:
            path: of an image, below its source; without a slash in front.
        """
        found = self.expression.match(path)
        if found is None:
            return None
        values = dict.fromkeys(FIELDS, "")
        for name, value in zip(self.fields, found.groups(), strict=True):
            values[name] = f"{values[name]}/{value}" if values[name] else value
        return values["group_id"] or None, values["label"] or None


def check_pattern(text: str) -> str:
    """Return the text of a pattern if it is one.

    Raises:
        ConfigError: see `Pattern.parse`.
    """
    return Pattern.parse(text).text


def below(uri: str, source: str) -> str:
    """Return the path of an image below its source: what a pattern is compared with.

    Below a glob it begins at the glob's root. An image in a tar lies below the tar, as if that were a folder.

    Args:
        uri: of the image.
        source: URI of the source.
    """
    path = uri.removeprefix(source)
    if path == uri or (path and path[0] not in f"/{MARK}" and not source.endswith("/")):  # not below it: a glob
        path = kind_named(source).path_of(uri.removeprefix(root_of(source)))
    return path.removeprefix(MARK).lstrip("/")


def _wrong(text: str, tokens: list[str], fields: tuple[str, ...]) -> str:
    """Say what is wrong with a pattern, and what was expected; nothing if it is fine."""
    known = " and ".join(f"{{{name}}}" for name in FIELDS)
    unknown = [name for name in fields if name not in FIELDS]
    variable = sum(token[0] in "{*" for token in tokens)
    if not text:
        return f"nothing, expected a path with {known}"
    if len(text) > _LONGEST:
        return f"{len(text)} characters, expected at most {_LONGEST}"
    if "{" in tokens or "}" in tokens:
        return "a brace without its other half, expected both around the name of a field"
    if unknown:
        return f"the field {{{unknown[0]}}}, expected {known}"
    if not fields:
        return f"no field, expected {known}, or one of them"
    if fields.count("label") > 1:
        return f"{{label}} {fields.count('label')} times, expected it once: an image has one label"
    if variable > _MOST:
        return f"{variable} fields and stars, expected at most {_MOST}"
    if text.startswith("/"):
        return "a slash in front, expected a path below the source"
    return ""


def _expression(tokens: list[str]) -> str:
    r"""Return the regular expression of a pattern. Matching takes time proportional to the path, whatever the pattern.

    Each star or field is one atomic group with the text behind it, and takes the first place where that text stands.
    No later place could help: whatever may follow from there may follow from the first one, since the next star or
    field reaches just as far, up to the next slash. `**` is any number of whole folders and a `*`; only it has to look
    further, so that it is atomic together with all up to the next `**`.
    """
    pieces = [["", ""]]  # each: what varies, and the text behind it
    for token in tokens:
        if token[0] in "{*":
            pieces.append([token, ""])
        else:
            pieces[-1][1] = re.escape(token)
    pieces[-1][1] += r"\Z"
    expression, end = pieces[0][1], ""
    for token, text in pieces[1:]:
        if token == "**":  # noqa: S105  (no password)
            expression += f"{end}(?>(?:[^/]*+/)*?"
            end = ")"
        expression += f"(?>([^/]+?){text})" if token[0] == "{" else f"(?>[^/]*?{text})"
    return expression + end
