"""Samples of a webdataset: members of a tar with one key, which tell what is known about its images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from dn2.errors import ConfigError
from dn2.sources.source import ListedFile

TELLING = ("cls", "json")  # endings, behind the key, of members that tell something
_MOST = 1_000  # images of one sample that wait for what is known about them
_LARGEST = {"cls": 4_096, "json": 2**20}  # bytes
_LONGEST = 4_096  # characters of a group or label


def key_and_ending(name: str) -> tuple[str, str]:
    """Return the key of a member, its path up to the first dot of its base name, and what follows."""
    folder, slash, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return f"{folder}{slash}{key}", ending.lower()


class Samples:
    """Images of a tar in their order, each with what the members of its sample tell.

    What belongs to a sample stands together in the tar, in any order: its images wait until the next sample begins.

    Attributes:
        ignored: members that tell about no image.
    """

    def __init__(self, tar: str) -> None:
        self._tar = tar
        self.ignored = 0
        self._begin("")

    def _begin(self, key: str) -> None:
        self._key = key
        self._waiting: list[ListedFile] = []
        self._told: dict[str, tuple[str | None, str | None]] = {}  # group and label, by who told
        self._wrong = ""
        self._passed = 0  # images that could not wait

    def turn(self, key: str) -> Iterator[ListedFile]:
        """Yield the images of the last sample if another one begins."""
        if key != self._key:
            yield from self.end()
            self._begin(key)

    def add(self, image: ListedFile) -> Iterator[ListedFile]:
        """Take in an image of the sample; yield those that cannot wait any longer: memory is bounded."""
        self._waiting.append(image)
        if self._passed or len(self._waiting) > _MOST:
            self._passed += len(self._waiting)
            yield from self._known()

    def tell(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        """Take in a member that may tell group and label.

        Args:
            name: of the member, which ends in .cls or .json.
            size: its bytes.
            read: returns them.

        Raises:
            ConfigError: it stands behind more images of its sample than can wait.
        """
        ending = key_and_ending(name)[1]
        if size > _LARGEST[ending]:
            self._wrong = self._wrong or f"{name!r} of {size} bytes, expected at most {_LARGEST[ending]}"
            return
        try:
            found = _label(read()) if ending == "cls" else _group_and_label(read())
        except UnicodeDecodeError:
            self._wrong = self._wrong or f"{name!r} with bytes that are not UTF-8, expected a label"
            return
        if self._passed and found != (None, None):
            raise ConfigError(
                f"tar {self._tar}: got {name!r} after more than {_MOST} images of its sample, expected it before them"
            )
        self._told[ending] = found

    def end(self) -> Iterator[ListedFile]:
        """Yield the images of the last sample."""
        if not self._waiting and not self._passed:
            self.ignored += len(self._told) + bool(self._wrong)
        yield from self._known()

    def _known(self) -> Iterator[ListedFile]:
        if not self._waiting:
            return
        if self._wrong:
            raise ConfigError(f"tar {self._tar}: got {self._wrong}")
        nothing = None, None
        told = [self._told.get(ending, nothing) for ending in TELLING]
        group_id = next((group for group, _ in told if group is not None), None)
        label = next((label for _, label in told if label is not None), None)
        for name, value in (("group_id", group_id), ("label", label)):
            if value is not None and len(value) > _LONGEST:
                raise ConfigError(
                    f"tar {self._tar}: sample {self._key!r}: got a {name} of {len(value)} characters, expected at most "
                    f"{_LONGEST}"
                )
        for image in self._waiting:
            yield replace(image, group_id=group_id, label=label)
        self._waiting = []


def _label(content: bytes) -> tuple[str | None, str | None]:
    return None, content.decode().strip() or None


def _group_and_label(content: bytes) -> tuple[str | None, str | None]:
    """Return what a JSON object says; nothing if it is none. Numbers are taken as they are written."""
    try:
        value = json.loads(content, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(value, dict):
        return None, None
    return _text(value.get("group_id")), _text(value.get("label"))


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return value.encode("utf-8", "backslashreplace").decode() or None  # JSON may hold half of a character
