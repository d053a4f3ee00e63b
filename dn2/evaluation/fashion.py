"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747): real pictures of known classes, from Debian."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dn2.errors import NotFoundError

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
_HEADERS = {"images-idx3": 16, "labels-idx1": 8}  # bytes before the values of an IDX file


@dataclass(frozen=True, slots=True)
class Fashion:
    """The pictures and their classes.

    Attributes:
        train_images: (60000, 28, 28) uint8.
        train_labels: (60000,) uint8, 0 to 9.
        test_images: (10000, 28, 28) uint8.
        test_labels: (10000,) uint8.
    """

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.uint8]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.uint8]


def read_fashion(folder: str | os.PathLike[str] = FOLDER) -> Fashion:
    """Return the data set from a folder with its four gzipped IDX files.

    Raises:
        NotFoundError: a file is missing.
    """

    def read(part: str, kind: str) -> npt.NDArray[np.uint8]:
        path = Path(folder) / f"{part}-{kind}-ubyte.gz"
        try:
            with gzip.open(path) as file:
                return np.frombuffer(file.read(), np.uint8, offset=_HEADERS[kind])
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{path}: nothing is there, expected a file of Fashion-MNIST; install Debian's package "
                f"dataset-fashion-mnist"
            ) from error

    return Fashion(
        read("train", "images-idx3").reshape(-1, 28, 28),
        read("train", "labels-idx1"),
        read("t10k", "images-idx3").reshape(-1, 28, 28),
        read("t10k", "labels-idx1"),
    )


def write_pictures(folder: Path, images: npt.NDArray[np.uint8]) -> None:
    """Write (N, H, W) uint8 gray pictures as 00000.png, 00001.png ... into a folder that is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:05d}.png", compress_level=1)
