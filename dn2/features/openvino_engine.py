"""The one module that knows OpenVINO: float32 on the CPU, telemetry off, compiled networks kept in the cache folder."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dn2.features import backbones
from dn2.features.backbones import Backbone, Pretrained, embedder_of, network_of
from dn2.features.engine import Result
from dn2.store.cache import cache_dir

# OpenVINO's converter reports usage over the network if this package can be imported; it runs as well without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail

import openvino  # noqa: E402  (telemetry must be off before)

log = getLogger(__name__)
_SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16 on CPUs that have it
    "PERFORMANCE_HINT": "LATENCY",  # one stream over all cores: fastest here when batches come one by one
    "ENABLE_CPU_PINNING": False,  # pinned, two processes share the same cores
}


class OpenVINOEngine:
    """Runs a backbone with OpenVINO on the CPU, in float32."""

    def __init__(self, backbone: Backbone) -> None:
        self._compiled: Any = openvino.Core().compile_model(_network(backbone), "CPU", _SETTINGS)
        self._request: Any = self._compiled.create_infer_request()
        self.name = f"openvino {version('openvino')} cpu fp32"
        self.ahead = 0

    def start(self, pixels: npt.NDArray[np.float32]) -> Result:
        """Send (B, 3, H, W) float32 pixels through the network; they are through when this returns."""
        embeddings: npt.NDArray[np.float32] = self._request.infer({0: pixels})[0]
        embeddings = embeddings.copy()  # the request's own memory is written again by the next batch
        return lambda: embeddings


def _network(backbone: Backbone) -> Any:
    """Return the converted network, from the cache folder if it was converted before.

    That of a backbone of the user's own is converted each time: nobody knows when its code changes.
    """
    if not isinstance(backbone, Pretrained):
        return _converted(backbone)
    home = Path(backbones.__file__)
    code = b"".join(home.with_name(name).read_bytes() for name in (home.name, "torchvision_models.py"))
    made_by = f"{hashlib.sha256(code).hexdigest()[:8]}-openvino-{version('openvino')}-torch-{torch.__version__}"
    folder = cache_dir() / "openvino" / f"{embedder_of(backbone).id}-{made_by}"
    if (folder / "network.xml").exists():
        try:
            return openvino.Core().read_model(folder / "network.xml")
        except RuntimeError:
            log.warning("the converted network in %s is damaged: it is converted again", folder)
            shutil.rmtree(folder, ignore_errors=True)
    network = _converted(backbone)
    try:
        _keep(network, folder)
    except (OSError, RuntimeError) as error:  # OpenVINO raises the latter when the disk is full
        log.warning("cannot keep the converted network in %s (%s): it is converted each time", folder, error)
    return network


def _converted(backbone: Backbone) -> Any:
    side = backbone.preprocessing.crop
    example = torch.zeros(2, 3, side, side)
    with torch.inference_mode(), warnings.catch_warnings(), _root_logger_as_before():
        warnings.simplefilter("ignore")  # tracing warns about Python values; tests compare the engines
        return openvino.convert_model(
            network_of(backbone), example_input=example, input=[openvino.PartialShape([-1, 3, side, side])]
        )


@contextmanager
def _root_logger_as_before() -> Iterator[None]:
    """The converter silences all warnings of the process, and leaves it so when it fails."""
    root = getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _keep(network: Any, folder: Path) -> None:
    """Put a converted network into the cache folder in one move; another process may have been first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staged-"))
    try:
        openvino.save_model(network, staged / "network.xml", compress_to_fp16=False)
        if not folder.exists():
            staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
