"""What runs a backbone: torch on a CPU or GPU, or OpenVINO on a CPU. All give the same embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dn2.errors import ConfigError, EmbedderError
from dn2.features.backbones import Backbone

log = getLogger(__name__)


class Engine(Protocol):
    """Runs a backbone on one device.

    Attributes:
        name: engine and device, for the records.
    """

    name: str

    def __call__(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (B, D) float32 embeddings for (B, 3, H, W) float32 pixels."""
        ...


class TorchEngine:
    """Runs a backbone with torch, in float32."""

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self._device = device
        self._features = backbone.load().to(device).to(memory_format=torch.channels_last)
        self.name = f"torch {torch.__version__} {device} fp32"

    def __call__(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (B, D) float32 embeddings for (B, 3, H, W) float32 pixels."""
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self._device, memory_format=torch.channels_last)
            embeddings: npt.NDArray[np.float32] = self._features(batch).cpu().numpy()
        return embeddings


def embed_pixels(engine: Engine, pixels: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float16]:
    """Return (M, D) float16 embeddings, as they are stored, of M times (3, H, W) float32 pixels.

    Raises:
        EmbedderError: the network gave numbers that are not finite in float16.
    """
    with np.errstate(over="ignore"):
        vectors = engine(np.stack(pixels)).astype(np.float16)
    if not np.isfinite(vectors).all():
        raise EmbedderError(f"{engine.name}: got embeddings that are not finite in float16: the weights are no good")
    return vectors


def load_engine(backbone: Backbone, *, engine: str = "auto", device: str = "auto") -> Engine:
    """Return a loaded engine.

    Args:
        backbone: the network to run.
        engine: auto, openvino or torch. auto takes torch on a GPU and OpenVINO on a CPU.
        device: auto, cpu, cuda or cuda:N. auto takes the first GPU if there is one.

    Raises:
        ConfigError: the device is not there, or OpenVINO was asked to run on a GPU.
        WeightsError: the backbone's weights are missing or do not fit.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and engine != "openvino" else "cpu"
    if device != "cpu":
        if engine == "openvino":
            raise ConfigError(f"engine openvino runs on the CPU: got device {device!r}, expected cpu or auto")
        index = int(device.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ConfigError(
                f"device: got {device!r}, expected cpu or one of the {torch.cuda.device_count()} GPUs torch can see"
            )
        return TorchEngine(backbone, torch.device(device))
    if engine == "torch":
        return TorchEngine(backbone, torch.device("cpu"))
    try:
        from dn2.features.openvino_engine import OpenVINOEngine
    except ImportError as error:
        if engine == "openvino":
            raise ConfigError(f"engine openvino cannot be loaded ({error}): install openvino, or use torch") from error
        log.warning("OpenVINO cannot be loaded (%s): torch runs the backbone, two to six times slower", error)
        return TorchEngine(backbone, torch.device("cpu"))
    return OpenVINOEngine(backbone)
