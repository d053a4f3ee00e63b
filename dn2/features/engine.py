"""What an engine is: it runs a backbone on one device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Result = Callable[[], npt.NDArray[np.float32]]  # waits for a batch's embeddings, (B, D) float32


class Engine(Protocol):
    """Runs a backbone on one device.

    Attributes:
        name: engine, device and precision, for the records.
        ahead: batches that may be under way before the first one is waited for.
    """

    name: str
    ahead: int

    def start(self, pixels: npt.NDArray[np.float32]) -> Result:
        """Send (B, 3, H, W) float32 pixels on their way through the network. They may be written over afterwards."""
        ...
