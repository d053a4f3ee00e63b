"""report.html: one self-contained page. Every name comes from outside and is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from dn2.neighbors.index import index_of
from dn2.records import BankVersion, Report
from dn2.reports.pictures import data_uri, shares
from dn2.sources.pattern import below

SIDE = 96  # pixels of the square in which the page shows a picture, see style.css.j2


@dataclass(frozen=True, slots=True)
class Card:
    """One of the worst images beside its nearest normal ones.

    Attributes:
        row: its row of the report.
        pictures: JPEG thumbnails by image id, of this image and of its neighbours, where there are any.
        grid: rows and columns of tiles that images are cut into; None if they are not.
    """

    row: dict[str, Any]
    pictures: dict[str, bytes]
    grid: tuple[int, int] | None = None

    def picture(self, image_id: str) -> str:
        """Return a data URI, or nothing where no thumbnail is known."""
        return data_uri(self.pictures.get(image_id))

    @property
    def frame(self) -> str:
        """Where on its picture the tile lies that counts, as CSS; nothing where images are not cut into tiles."""
        return self._frame(self.row["image_id"], self.row["tile"])

    @property
    def neighbors(self) -> list[tuple[str, str, float, str]]:
        """Picture, URI, squared distance and frame of each neighbour, nearest first."""
        row = self.row
        ids = row["neighbor_ids"]
        tiles = row["neighbor_tiles"] or [None] * len(ids)
        return [
            (self.picture(image_id), uri, distance, self._frame(image_id, tile))
            for image_id, uri, distance, tile in zip(
                ids, row["neighbor_uris"], row["neighbor_distances"], tiles, strict=True
            )
        ]

    def _frame(self, image_id: str, tile: int | None) -> str:
        picture = self.pictures.get(image_id)
        if tile is None or self.grid is None or picture is None:
            return ""
        rows, columns = self.grid
        (left, width), (top, height) = (
            _part_of(share, place, count)
            for share, place, count in zip(
                shares(picture), (tile % columns, tile // columns), (columns, rows), strict=True
            )
        )
        return f"left:{left:.2f}px;top:{top:.2f}px;width:{width:.2f}px;height:{height:.2f}px"


def _part_of(share: float, place: int, count: int) -> tuple[float, float]:
    """Return begin and length, in pixels on the page, of one of `count` parts of a centred picture."""
    length = SIDE * share / count
    return SIDE * (1 - share) / 2 + place * length, length


def render(
    report: Report, bank: BankVersion, *, above: int, cards: list[Card], rejects: list[tuple[str, str]], histogram: str
) -> str:
    """Return the page as HTML.

    Args:
        report: counts and warnings.
        bank: what the batch was compared with.
        above: how many of its calibration scores lie above the threshold.
        cards: the worst images, worst first.
        rejects: URI and reason of images that could not be read, perhaps not all.
        histogram: an SVG element made by us.
    """
    picture = Markup(histogram)  # noqa: S704  (drawn by us from numbers)
    return page_template("report.html.j2").render(
        report=report,
        bank=bank,
        index=index_of(bank.index),
        search=told_search(bank),
        above=above,
        cards=cards,
        rejects=rejects,
        histogram=picture,
    )


def told_search(bank: BankVersion) -> str | None:
    """Return how the neighbours were searched and what that costs in accuracy; None where the search is exact."""
    cost = bank.fidelity
    if cost is None:
        return None
    images = f"{cost.images:,} images" + (
        ", each left out," if bank.calibration == "leave-one-out" else " that are not in the bank"
    )
    percent = f"{100 * cost.score_error:.2g}" if cost.score_error < 0.995 else f"{100 * cost.score_error:,.0f}"
    errors = (
        f"scores are off by {percent} % on average, their ranks correlate by {_floored(cost.rank_correlation, 4)}, and "
        f"{cost.flipped:,} decision{' flips' if cost.flipped == 1 else 's flip'}."
    )
    index = index_of(bank.index)
    recall = "" if cost.recall is None else f"this finds {_floored(100 * cost.recall, 1)} % of the true neighbours; "
    before = " This was measured before images were added." if index.centres and bank.segment_count > 1 else ""
    return f"Neighbours are searched approximately: {index.searched(bank)}. On {images} {recall}{errors}{before}"


def _floored(value: float, digits: int) -> str:
    """Return a number rounded down: what is not all must not look like it."""
    return f"{Decimal(f'{value:.10f}').quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR).normalize():f}"


def page_template(name: str) -> Template:
    """Return a page's template; whatever is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("dn2.reports", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["below"] = below
    environment.filters["name"] = lambda uri: uri.rpartition("/")[2]
    return environment.get_template(name)
