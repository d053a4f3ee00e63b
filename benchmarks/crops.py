"""Does cutting images into tiles find small flaws that a central square misses? `make bench-crops`, on the demo's wall.

Images are windows of 256 x 256 px of the demo's photograph (brick, 512 x 512 gray, from scikit-image's wheel). In each
normal image of a batch flaws are made as the demo makes them: a scratch (1 to 2 px wide, 25 to 50 px long) or a hole
(half axes of 4 to 9 px), each once with its middle 4 to 14 px from the nearest edge (`rim`: the central square leaves
out 16), once 14 to 44 px (`near`), and once further inside (`inner`). Places, sizes and contrasts are drawn from a
generator with seed 0. Two ways to part bank and batch:

- **chessboard**, as in the demo: windows every 32 px, 41 of one colour in the bank, 40 of the other in the batch. The
  bank has seen every part of the wall; windows of bank and batch overlap.
- **halves**: windows every 8 rows, and the same mirrored, 66 of the left half in the bank and 66 of the right half in
  the batch. The bank has never seen that part of the wall, and its bricks are others.

`auc_<way>_<crop>_<band>`: area under the ROC curve of the flaws of a band against the normal images of the batch; the
kinds are in `about`. The stated margin, for flaws at the rim and the chessboard: `gain_tiles_2x2`, over the central
square, is at least 0.1. Everything goes through `dn2.ingest`, `embed`, `fit` and `score` with the offline backbone.

The bands came after a first look: with flaws 10 to 44 px from the edge alone, most of which the central square sees,
tiles of 2 x 2 were level with it on the chessboard (0.886 and 0.888), and behind on the halves (0.605 and 0.692).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data, draw, filters

import dn2
from benchmarks.results import write_results
from dn2 import layout
from dn2.evaluation.metrics import roc_auc
from dn2.store.schemas import REPORT
from dn2.store.tables import read_table

SIDE, GRID, STEP = 256, 32, 8
BANDS = {"rim": (4, 14), "near": (14, 44), "inner": (44, 128)}  # pixels from a flaw's middle to the nearest edge
CROPS = ("center", "full", "tiles-2x2", "tiles-3x3")


def chessboard(wall: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the windows of bank and batch, of every second place of a grid each."""
    places = range(0, wall.shape[0] - SIDE + 1, GRID)
    cut = [wall[row : row + SIDE, column : column + SIDE] for row in places for column in places]
    return cut[0::2], cut[1::2]


def halves(wall: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the windows of bank and batch, of one half of the photograph each, and the same mirrored."""
    both = []
    for half in (wall[:, :SIDE], wall[:, SIDE:]):
        cut = [half[row : row + SIDE] for row in range(0, half.shape[0] - SIDE + 1, STEP)]
        both.append([*cut, *(window[:, ::-1] for window in cut)])
    return both[0], both[1]


def place(random: np.random.Generator, near: int, far: int) -> np.ndarray:
    """Return row and column of a flaw's middle, so far from one of the four edges."""
    at = np.array([random.uniform(near, far), random.uniform(near, SIDE - near)])
    at = at[::-1] if random.random() < 0.5 else at
    return np.where(random.random(2) < 0.5, at, SIDE - at)


def scratched(window: np.ndarray, random: np.random.Generator, middle: np.ndarray) -> np.ndarray:
    """Return a window with one straight line, darker or brighter by 60 to 90 gray levels."""
    length, angle = random.uniform(25, 50), random.uniform(0, np.pi)
    reach = np.array([np.sin(angle), np.cos(angle)]) * length / 2
    start, end = np.round(np.clip([middle - reach, middle + reach], 1, SIDE - 2)).astype(int)
    line = np.zeros((SIDE, SIDE))
    line[draw.line(*start, *end)] = 1
    if random.random() < 0.5:
        line = np.maximum(line, np.roll(line, 1, axis=int(abs(reach[0]) < abs(reach[1]))))
    return changed(window, line * random.uniform(60, 90) * random.choice([-1, 1]))


def holed(window: np.ndarray, random: np.random.Generator, middle: np.ndarray) -> np.ndarray:
    """Return a window with a dark ellipse with a soft rim, darker by 80 to 110 gray levels."""
    mask, axes = np.zeros((SIDE, SIDE)), random.uniform(4, 9, 2)
    mask[draw.ellipse(*middle, *axes, shape=mask.shape, rotation=random.uniform(0, np.pi))] = 1
    return changed(window, -filters.gaussian(mask, 0.8) * random.uniform(80, 110))


def changed(window: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return a window with other gray levels."""
    return np.clip(window + by, 0, 255).astype(np.uint8)


KINDS = {"scratch": scratched, "hole": holed}


def write_images(folder: Path, normal: list[np.ndarray], batch: list[np.ndarray]) -> None:
    """Write the normal images and the batch, where each one without a flaw is there with each kind of flaw, too."""
    random = np.random.default_rng(0)
    pictures = {f"normal/{number:03d}": window for number, window in enumerate(normal)}
    for number, window in enumerate(batch):
        pictures[f"batch/good-{number:03d}"] = window
        for band, distances in BANDS.items():
            for kind, make in KINDS.items():
                pictures[f"batch/{band}-{kind}-{number:03d}"] = make(window, random, place(random, *distances))
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)


def scores_by_kind(folder: Path, crop: str) -> dict[str, np.ndarray]:
    """Return the scores of the batch's images, by kind."""
    store, config = dn2.Store.open(folder / "store"), dn2.EmbedConfig(backbone="efficientnet_lite0", crop=crop)
    normal = dn2.embed(dn2.ingest(folder / "normal", store), store, config=config)
    bank = dn2.fit(normal, store, bank=crop)
    batch = dn2.embed(dn2.ingest(folder / "batch", store), store, bank=bank)
    report = dn2.score(batch, store, bank=bank)
    table = read_table(store, f"{report.uri.removeprefix(f'{store.uri}/')}/{layout.part(0)}", REPORT, ["uri", "score"])
    kinds = np.array([uri.rpartition("/")[2].rpartition("-")[0] for uri in table["uri"].to_pylist()])
    return {kind: table["score"].to_numpy()[kinds == kind] for kind in np.unique(kinds)}


def area(good: np.ndarray, bad: np.ndarray) -> float:
    """Return how often an image with a flaw scores above one without."""
    return roc_auc(np.concatenate([good, bad]), np.repeat([False, True], [len(good), len(bad)]))


def main() -> None:
    """Measure every crop both ways."""
    figures: dict[str, float] = {}
    about: dict[str, object] = {}
    for part in (chessboard, halves):
        way = part.__name__
        normal, batch = part(data.brick())
        about[way] = {"bank": len(normal), "batch": (1 + len(BANDS) * len(KINDS)) * len(batch)}
        with tempfile.TemporaryDirectory() as name:
            write_images(Path(name), normal, batch)
            for crop in CROPS:
                found, word = scores_by_kind(Path(name), crop), crop.replace("-", "_")
                for band in BANDS:
                    bad = {kind: found[f"{band}-{kind}"] for kind in KINDS}
                    figures[f"auc_{way}_{word}_{band}"] = area(found["good"], np.concatenate(list(bad.values())))
                    about[f"auc_{way}_{word}_{band}"] = {
                        kind: round(area(found["good"], scores), 4) for kind, scores in bad.items()
                    }
    for word in ("full", "tiles_2x2", "tiles_3x3"):
        figures[f"gain_{word}"] = figures[f"auc_chessboard_{word}_rim"] - figures["auc_chessboard_center_rim"]
    write_results("crops", figures, about)


if __name__ == "__main__":
    main()
