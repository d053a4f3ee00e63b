"""The indexes that there are. A new one is a file here, a name below, and one in `FitConfig.index`."""

from __future__ import annotations

from dn2.errors import SchemaError
from dn2.neighbors.index.centroids import Centroids
from dn2.neighbors.index.exact import Exact
from dn2.neighbors.index.ivf import Ivf
from dn2.neighbors.index.kind import Index, Laid

EXACT, IVF = Exact(), Ivf()  # between these `auto` chooses
INDEXES: dict[str, Index] = {index.name: index for index in (EXACT, IVF, Centroids())}

__all__ = ["EXACT", "INDEXES", "IVF", "Index", "Laid", "index_of"]


def index_of(name: str) -> Index:
    """Return the index of a name, as in a bank's version file.

    Raises:
        SchemaError: there is none; the bank was made by a later dn2.
    """
    if name not in INDEXES:
        raise SchemaError(f"index: got {name!r:.60}, expected one of: {', '.join(INDEXES)}; update dn2")
    return INDEXES[name]
