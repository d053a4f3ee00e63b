"""What names, devices, crops and digests may look like, and the fingerprint of what has none of its own."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from dn2.errors import ConfigError

_DEVICE = re.compile(r"auto|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*")
_TILES = re.compile(r"tiles-([1-9][0-9]?)x([1-9][0-9]?)|tiles\( ?([1-9][0-9]?) ?, ?([1-9][0-9]?) ?\)")
_SHA256 = re.compile("[0-9a-f]{64}")
_MOST_TILES = 16  # in a row, and in a column
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def fingerprint(value: Any, *, length: int = 16) -> str:
    """Return the first `length` hex digits of the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def check_name(name: str) -> str:
    """Return a dataset's or bank's name if it can be a folder's name everywhere.

    Raises:
        ConfigError: it is empty, over 100 characters, starts with a dot or dash, or holds other characters
            than letters, digits, dot, dash and underscore.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r} cannot be used: expected 1 to 100 letters, digits, dots, dashes or underscores, "
            f"starting with a letter or digit"
        )
    return name


def check_device(device: str) -> str:
    """Return the name of a device if it is one.

    Raises:
        ConfigError: it is not.
    """
    if not _DEVICE.fullmatch(device):
        raise ConfigError(f"got {device!r}, expected auto, cpu, cuda or cuda:N, or several with commas between")
    return device


def tile_grid(crop: str) -> tuple[int, int] | None:
    """Return rows and columns of the tiles that a crop cuts an image into; full is one tile, center none at all.

    Raises:
        ConfigError: the crop is none.
    """
    if crop == "center":
        return None
    if crop == "full":
        return 1, 1
    found = _TILES.fullmatch(crop)
    rows, columns = (int(number) for number in found.groups() if number is not None) if found else (0, 0)
    if not (1 <= rows <= _MOST_TILES and 1 <= columns <= _MOST_TILES):
        raise ConfigError(
            f"got {crop!r}, expected auto, center, full, or tiles-RxC with 1 to {_MOST_TILES} rows R and columns C, "
            f"such as tiles-2x3"
        )
    return rows, columns


def check_sha256(digits: str) -> str:
    """Return a sha256 as it is written in names, in small letters.

    Raises:
        ConfigError: it is none.
    """
    if not _SHA256.fullmatch(digits.lower()):
        raise ConfigError(f"got {digits!r}, expected a sha256: 64 hex digits, as sha256sum prints them")
    return digits.lower()


def check_crop(crop: str) -> str:
    """Return a crop as it is written in names: tiles(2, 3) as tiles-2x3, and one tile as full.

    Raises:
        ConfigError: it is none.
    """
    grid = None if crop == "auto" else tile_grid(crop)
    if grid is None:
        return crop
    return "full" if grid == (1, 1) else f"tiles-{grid[0]}x{grid[1]}"
