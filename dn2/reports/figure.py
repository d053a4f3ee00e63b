"""The one picture every report has: where the batch's scores lie beside those of normal images."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BATCH, NORMAL, LIMIT = "#c2410c", "#0f766e", "#334155"

_DISTANCE = "mean squared distance to the nearest normal images"
_SCALED = "distance to the nearest normal images over their own spread, squared"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores counted in common bins.

    Attributes:
        edges: (B + 1,) float64, scores.
        batch: (B,) int64, images of the batch.
        calibration: (B,) int64, normal images.
        scaled: whether scores are relative to the neighbours' own spread.
    """

    edges: npt.NDArray[np.float64]
    batch: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]
    scaled: bool = False


def histogram_svg(histogram: Histogram, threshold: float) -> str:
    """Return an SVG element: share of images over score, batch above calibration, with the threshold."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dn2", "svg.fonttype": "none", "font.family": "sans-serif"}):
        FigureCanvasSVG(_drawn(histogram, threshold)).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def histogram_png(histogram: Histogram, threshold: float) -> bytes:
    """Return the same picture as a PNG file, 720 x 232 px."""
    buffer = io.BytesIO()
    FigureCanvasAgg(_drawn(histogram, threshold)).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _drawn(histogram: Histogram, threshold: float) -> Figure:
    figure = Figure(figsize=(9, 2.9), dpi=80)
    axes = figure.add_axes((0.085, 0.2, 0.91, 0.76))  # a layout that is computed takes longer than the drawing
    for counts, colour, name in (
        (histogram.calibration, NORMAL, "normal images (calibration)"),
        (histogram.batch, BATCH, "this batch"),
    ):
        share = counts / max(counts.sum(), 1)
        axes.stairs(share, histogram.edges, fill=True, color=colour, alpha=0.55, label=name, linewidth=0)
    axes.axvline(threshold, color=LIMIT, linestyle="--", linewidth=1.4, label=f"threshold {threshold:.4g}")
    axes.set_xlabel(f"anomaly score ({_SCALED if histogram.scaled else _DISTANCE})")
    axes.set_ylabel("share of images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    return figure
