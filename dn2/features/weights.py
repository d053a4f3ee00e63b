"""Files of weights: found anywhere, named by their sha256, and loaded without ever running what they hold."""

from __future__ import annotations

import hashlib
import pickle  # only for the name of its error: nothing is ever unpickled without weights_only
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dn2.errors import WeightsError
from dn2.store.cache import local_file

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # under which a training's checkpoint holds the weights
_PREFIXES = ("module.", "model.")  # in front of every name: where several GPUs trained, or a framework


def local_weights(url: str) -> Path:
    """Return a local path of a weights file anywhere; a remote one is fetched into the cache folder, once.

    Raises:
        ConfigError: the URL's protocol is unknown.
        NotFoundError: nothing is there.
        StoreError: it cannot be read, or the cache folder cannot be written.
    """
    return local_file(url, f"weights {url}")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as hex digits; it is read once per process, and again when it has changed."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return the sha256 of a file; size and time are there to notice that it changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_state(network: nn.Module, path: Path, *, heads: tuple[str, ...], what: str, origin: str | None) -> None:
    """Load a state dict into a network from which the heads were taken off: how many classes it had does not matter.

    A checkpoint that holds the state dict under `state_dict`, `model_state_dict` or `model` will do.

    Raises:
        WeightsError: the file is damaged, holds other things than tensors, or tensors of another network.
    """
    try:
        network.load_state_dict(_state(torch.load(path, map_location="cpu", weights_only=True), heads))
    except Exception as error:  # torch raises nearly anything on bad bytes
        provided = f"what {origin} provides, or " if origin is not None else ""
        raise WeightsError(
            f"{what}: weights file {path} does not fit: {_reason(error)}; expected {provided}a state dict of the same "
            f"network"
        ) from error


def _state(content: Any, heads: tuple[str, ...]) -> Any:
    """Return the state dict in what a file holds, without the heads; anything else as it is, for torch to refuse."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        return content
    state = {str(name): value for name, value in content.items()}
    versions = {str(name): value for name, value in getattr(content, "_metadata", {}).items()}  # of each layer's form
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
            versions = {name.removeprefix(prefix): value for name, value in versions.items()}
    off = tuple(f"{head}." for head in heads)
    found = OrderedDict((name, value) for name, value in state.items() if not name.startswith(off))
    found._metadata = versions  # type: ignore[attr-defined]  # where torch looks for it
    return found


def _reason(error: Exception) -> str:
    """Return in one line why a weights file could not be loaded."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is damaged, or holds other things than tensors"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__
