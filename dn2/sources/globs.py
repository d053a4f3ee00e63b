"""Globs: which paths below a root are meant. Only strings here; the walk asks about what it finds."""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache

from dn2.errors import ConfigError

_MAGIC = re.compile(r"[*?]|\[[^/]+\]")
_LONGEST = 1_000  # characters
_ANY = "**"


def split_glob(uri: str) -> tuple[str, str] | None:
    """Return the root of a glob (the part in front of the first name with a magic character) and the glob below it.

    Of a chain of protocols, the first path is looked at: `zip://p/*.png::file:///a.zip`.

    Args:
        uri: absolute.

    Returns:
        None if the URI has no magic character.
    """
    scheme, path, chain = _parts(uri)
    if not _MAGIC.search(path):
        return None
    root, glob = _cut(path)
    return f"{scheme}{root}{chain}", glob


def _parts(uri: str) -> tuple[str, str, str]:
    """Return what stands in front of the path, the path, and the protocols behind it."""
    scheme, mark, rest = uri.partition("://")
    path, chain, behind = rest.partition("::")
    if "://" not in behind:
        return scheme + mark, rest, ""
    return scheme + mark, path, chain + behind


def _cut(path: str) -> tuple[str, str]:
    names = path.split("/")
    at = next(number for number, name in enumerate(names) if _MAGIC.search(name))
    return "/".join(names[:at]) or ("/" if path.startswith("/") else ""), "/".join(names[at:])


@lru_cache(maxsize=16)
def root_of(uri: str) -> str:
    """Return the root of a glob; of any other URI, itself."""
    found = split_glob(uri)
    return uri if found is None else found[0]


def joined_glob(root: str, glob: str) -> str:
    """Return the URI of a glob below a root."""
    scheme, path, chain = _parts(root)
    return f"{scheme}{path}{'' if (path or scheme).endswith('/') else '/'}{glob}{chain}"


def escaped(text: str) -> str:
    """Return a glob that fits only this text."""
    return re.sub(r"[*?[]", r"[\g<0>]", text)


class Glob:
    """Paths that are meant: `*`, `?` and `[...]` within one name, `**` for any number of whole names.

    At the end, `**` stands for one name at least: `a/**` is all below `a`.

    Matching steps through a path name by name and holds every place of the glob where it may be: it takes time
    proportional to the path, whatever the glob.

    Attributes:
        text: as it was given.
        beginning: with what every fitting path begins.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ConfigError(f"glob {text[:100]!r}: got {len(text)} characters, expected at most {_LONGEST}")
        self.text = text
        self.beginning = re.split(r"[*?[]", text, maxsplit=1)[0]
        self._parts = [
            None if part == _ANY else re.compile(fnmatch.translate(part)) for part in text.split("/") if part
        ]

    def takes(self, path: str) -> bool:
        """Return True if a file's path fits.

        Args:
            path: below the root.
        """
        names = path.strip("/").split("/")
        places = self._step(self._step_all(names[:-1]), names[-1])
        return len(self._parts) in places

    def enters(self, path: str) -> bool:
        """Return True if something below a folder may fit.

        Args:
            path: of the folder, below the root.
        """
        return any(place < len(self._parts) for place in self._step_all(path.strip("/").split("/")))

    def _step_all(self, names: list[str]) -> set[int]:
        places = {0}
        for name in names:
            places = self._step(places, name)
        return places

    def _step(self, places: set[int], name: str) -> set[int]:
        """Return where in the glob one may be behind a name."""
        found = set()
        for place in self._skipped(places):
            part = self._parts[place]
            if part is None:
                found |= {place, place + 1}
            elif part.match(name):
                found.add(place + 1)
        return found

    def _skipped(self, places: set[int]) -> set[int]:
        """Return the same places and those that follow if a `**` stands for nothing; without the end."""
        found = set()
        for start in places:
            place = start
            while place < len(self._parts):
                found.add(place)
                if self._parts[place] is not None:
                    break
                place += 1
        return found
