"""What runs a backbone: torch on a CPU or GPU, or OpenVINO on a CPU. All give the same embeddings."""

from __future__ import annotations

from logging import getLogger

import numpy as np
import numpy.typing as npt
import torch

from dn2.errors import ConfigError, Dn2Error, EmbedderError
from dn2.features.backbones import Backbone, network_of
from dn2.features.engine import Engine, Result

log = getLogger(__name__)


class TorchEngine:
    """Runs a backbone with torch.

    On a GPU batches go through two buffers in pinned memory: one is copied and calculated with while the next one is
    filled. On a CPU the same steps are taken one after the other.
    """

    def __init__(self, backbone: Backbone, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self._device, self._precision = device, precision
        self._features = network_of(backbone).to(device).to(memory_format=torch.channels_last)
        self._is_gpu = device.type == "cuda"
        self.ahead = 1 if self._is_gpu else 0
        self._buffers: list[torch.Tensor] = []
        bits = torch.finfo(precision).bits
        self.name = f"torch {torch.__version__} {device} fp{bits}"

    def start(self, pixels: npt.NDArray[np.float32]) -> Result:
        """Send (B, 3, H, W) float32 pixels on their way through the network."""
        with torch.inference_mode():
            batch = self._sent(torch.from_numpy(pixels)).to(memory_format=torch.channels_last)
            with torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32):
                embeddings = self._features(batch).float()
            if not self._is_gpu:
                return lambda: embeddings.numpy()
            host = torch.empty(embeddings.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(embeddings, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._device))

        def wait() -> npt.NDArray[np.float32]:
            done.synchronize()
            return host.numpy()

        return wait

    def _sent(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixels on the device. On a GPU the copy goes on while the caller does something else."""
        if not self._is_gpu:
            return pixels
        if not self._buffers or self._buffers[0][: len(pixels)].shape != pixels.shape:
            torch.cuda.synchronize(self._device)
            self._buffers = [torch.empty(pixels.shape, pin_memory=True) for _ in range(1 + self.ahead)]
        buffer = self._buffers.pop(0)  # the batch that used it last is waited for already
        self._buffers.append(buffer)
        return buffer[: len(pixels)].copy_(pixels).to(self._device, non_blocking=True)


def embed_pixels(engine: Engine, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return (B, D) float16 embeddings, as they are stored, of (B, 3, H, W) float32 pixels.

    Raises:
        EmbedderError: the network gave something else, or numbers that are not finite in float16.
    """
    return checked(engine, engine.start(pixels)(), len(pixels))


def checked(engine: Engine, embeddings: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float16]:
    """Return the embeddings of `count` pictures as they are stored.

    Raises:
        EmbedderError: they have another shape than (count, D), or are not finite in float16.
    """
    if embeddings.ndim != 2 or len(embeddings) != count or not embeddings.size:
        raise EmbedderError(
            f"{engine.name}: got an array of shape {embeddings.shape} for {count} pictures, expected ({count}, D): the "
            f"backbone must return one vector for each picture"
        )
    with np.errstate(over="ignore"):
        vectors = embeddings.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise EmbedderError(f"{engine.name}: got embeddings that are not finite in float16; check the weights")
    return vectors


def devices_of(device: str, *, engine: str = "auto") -> tuple[str, ...]:
    """Return the devices that a setting means, each of which gets a worker of its own.

    Args:
        device: auto, cpu, cuda, cuda:N, or several with commas between. auto takes all GPUs that torch can see
            (CUDA_VISIBLE_DEVICES says which), or the CPU if there is none.
        engine: auto, openvino or torch; OpenVINO stays on the CPU.
    """
    if device != "auto":
        return tuple(device.split(","))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and engine != "openvino" else 0
    return tuple(f"cuda:{number}" for number in range(gpus)) or ("cpu",)


def load_engine(backbone: Backbone, *, engine: str = "auto", device: str = "auto", precision: str = "auto") -> Engine:
    """Return a loaded engine.

    Args:
        backbone: the network to run.
        engine: auto, openvino or torch. auto takes torch on a GPU and OpenVINO on a CPU.
        device: auto, cpu, cuda or cuda:N; of several, the first one.
        precision: auto, float32 or float16. auto takes float16 on a GPU and float32 on a CPU.

    Raises:
        ConfigError: the device is not there, or OpenVINO was asked for what it does not do.
        WeightsError: the backbone's weights are missing or do not fit.
    """
    place = devices_of(device, engine=engine)[0]
    if engine == "openvino" and place != "cpu":
        raise ConfigError(f"engine openvino runs on the CPU: got device {place!r}, expected cpu or auto")
    if engine == "openvino" and precision == "float16":
        raise ConfigError("engine openvino runs in float32: got precision float16, expected float32 or auto")
    if place == "cpu":
        return _on_cpu(backbone, engine, torch.float16 if precision == "float16" else torch.float32)
    index = int(place.partition(":")[2] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ConfigError(
            f"device: got {place!r}, expected cpu or one of the {torch.cuda.device_count()} GPUs torch can see"
        )
    return TorchEngine(backbone, torch.device(place), torch.float32 if precision == "float32" else torch.float16)


def _on_cpu(backbone: Backbone, engine: str, precision: torch.dtype) -> Engine:
    """Return OpenVINO where it can be had and does what was asked for, else torch."""
    if torch.cuda.is_available():
        log.warning(
            "the network runs on the CPU, but there is a GPU, which is far faster: leave device and engine at auto"
        )
    if engine == "torch" or precision != torch.float32:
        return TorchEngine(backbone, torch.device("cpu"), precision)
    try:
        from dn2.features.openvino_engine import OpenVINOEngine
    except ImportError as error:
        if engine == "openvino":
            raise ConfigError(f"engine openvino cannot be loaded ({error}): install openvino, or use torch") from error
        log.warning("OpenVINO cannot be loaded (%s): torch runs the backbone, two to six times slower", error)
        return TorchEngine(backbone, torch.device("cpu"))
    try:
        return OpenVINOEngine(backbone)
    except Dn2Error:
        raise
    except Exception as error:  # what its converter cannot read, torch may run all the same
        if engine == "openvino":
            raise ConfigError(
                f"engine openvino cannot run backbone {backbone.name} ({_first_line(error)}): use engine torch"
            ) from error
        log.warning("OpenVINO cannot run backbone %s (%s): torch runs it", backbone.name, _first_line(error))
        return TorchEngine(backbone, torch.device("cpu"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
