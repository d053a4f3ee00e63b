from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from dn2.reports.figure import Histogram, histogram_svg

EDGES = np.linspace(0.0, 6.0, 61)


def counted(batch: list[float], calibration: list[float]) -> Histogram:
    return Histogram(EDGES, np.histogram(batch, EDGES)[0], np.histogram(calibration, EDGES)[0])


def test_same_numbers_give_the_same_bytes():
    one, two = (histogram_svg(counted([1, 2, 2], [1, 1]), 1.5) for _ in range(2))
    assert one == two
    assert histogram_svg(counted([1, 2, 3], [1, 1]), 1.5) != one


def test_figure_is_one_svg_element_with_text_that_can_be_read():
    svg = histogram_svg(counted([1, 5], [1, 1.2]), 1.2345678)
    assert svg.startswith("<svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    for text in ("threshold 1.235", "this batch", "normal images (calibration)", "share of images"):
        assert f">{text}<" in svg


def test_empty_batch_is_drawn():
    assert histogram_svg(counted([], [1.0]), 1.0).startswith("<svg")
