"""Index exact: an image is compared with all that the bank holds."""

from __future__ import annotations

from dn2.neighbors.index.kind import Index


class Exact(Index):
    """All images, as they come."""

    name = "exact"
    exact = True
