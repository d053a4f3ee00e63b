"""The only way to the network that nobody but the user opens: fetch weights from where the model's authors put them."""

from __future__ import annotations

import re
import socket
from logging import getLogger
from pathlib import Path

import torch

from dn2.errors import WeightsError

log = getLogger(__name__)
_SILENCE = 30.0  # seconds without a byte
_DIGITS = re.compile(r"-([0-9a-f]{8,})\.pth$")  # in a file's name: how its sha256 begins


def fetch(url: str, path: Path, what: str) -> None:
    """Download a weights file to where torch keeps such; it appears whole, and as its name says, or not at all.

    Args:
        url: of the file.
        path: where to.
        what: needs it, for the message.

    Raises:
        WeightsError: it could not be fetched, or its sha256 does not begin as its name says.
    """
    log.warning("%s: downloading its weights from %s", what, url)
    digits, before = _DIGITS.search(url), socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_SILENCE)  # torch sets none
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digits and digits[1], progress=False)
    except Exception as error:  # urllib's, the disk's, and a plain RuntimeError for a wrong hash
        raise WeightsError(
            f"{what}: weights could not be fetched from {url}: {str(error).strip() or type(error).__name__}; put "
            f"the file at {path}, or name other weights with --weights"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
