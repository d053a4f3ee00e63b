"""dn2 finds the images that do not look like the normal ones (DN2: Bergman, Cohen, Hoshen 2020, arXiv 2002.10445).

The steps, one after the other, are the library: `ingest`, `embed`, `fit`, `score`, and `clean` before `fit` where the
training images may hold anomalies. Each takes the record that the step before returned; whatever is large lies in the
store, and `show` tells what that is. Names are loaded when they are first used: `import dn2` is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dn2.config import (
        AddConfig,
        CleanConfig,
        EmbedConfig,
        FitConfig,
        GroupFitConfig,
        GroupScoreConfig,
        ScoreConfig,
        ThresholdConfig,
    )
    from dn2.errors import (
        BankError,
        ConfigError,
        Dn2Error,
        EmbedderError,
        EmptySourceError,
        NotFoundError,
        RejectedError,
        SchemaError,
        SourceError,
        StoreError,
        WeightsError,
    )
    from dn2.features.backbones import Backbone
    from dn2.features.embed import embed
    from dn2.groups.bank import open_group_bank
    from dn2.groups.fit import fit_groups
    from dn2.groups.score import score_groups
    from dn2.images.decoding import Preprocessing
    from dn2.images.ingest import ingest
    from dn2.neighbors.versions import open_bank, use_version
    from dn2.records import (
        BankVersion,
        Cleaning,
        Compacted,
        Dataset,
        Embedded,
        GroupBankVersion,
        GroupReport,
        Growth,
        Pruned,
        Report,
    )
    from dn2.reports.export import export
    from dn2.scoring.cleaning import clean
    from dn2.scoring.fit import fit
    from dn2.scoring.grow import add, remove
    from dn2.scoring.rethreshold import rethreshold
    from dn2.scoring.score import score
    from dn2.store.storage import Store
    from dn2.upkeep.compact import compact
    from dn2.upkeep.overview import Overview
    from dn2.upkeep.prune import prune
    from dn2.upkeep.show import show

_HOMES = {
    "dn2.config": (
        "AddConfig",
        "CleanConfig",
        "EmbedConfig",
        "FitConfig",
        "GroupFitConfig",
        "GroupScoreConfig",
        "ScoreConfig",
        "ThresholdConfig",
    ),
    "dn2.errors": (
        "BankError",
        "ConfigError",
        "Dn2Error",
        "EmbedderError",
        "EmptySourceError",
        "NotFoundError",
        "RejectedError",
        "SchemaError",
        "SourceError",
        "StoreError",
        "WeightsError",
    ),
    "dn2.features.backbones": ("Backbone",),
    "dn2.features.embed": ("embed",),
    "dn2.groups.bank": ("open_group_bank",),
    "dn2.groups.fit": ("fit_groups",),
    "dn2.groups.score": ("score_groups",),
    "dn2.upkeep.compact": ("compact",),
    "dn2.upkeep.show": ("show",),
    "dn2.upkeep.prune": ("prune",),
    "dn2.images.decoding": ("Preprocessing",),
    "dn2.images.ingest": ("ingest",),
    "dn2.neighbors.versions": ("open_bank", "use_version"),
    "dn2.upkeep.overview": ("Overview",),
    "dn2.records": (
        "BankVersion",
        "Cleaning",
        "Compacted",
        "Dataset",
        "Embedded",
        "GroupBankVersion",
        "GroupReport",
        "Growth",
        "Pruned",
        "Report",
    ),
    "dn2.reports.export": ("export",),
    "dn2.scoring.cleaning": ("clean",),
    "dn2.scoring.fit": ("fit",),
    "dn2.scoring.grow": ("add", "remove"),
    "dn2.scoring.rethreshold": ("rethreshold",),
    "dn2.scoring.score": ("score",),
    "dn2.store.storage": ("Store",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AddConfig",
    "Backbone",
    "BankError",
    "BankVersion",
    "CleanConfig",
    "Cleaning",
    "Compacted",
    "ConfigError",
    "Dataset",
    "Dn2Error",
    "EmbedConfig",
    "Embedded",
    "EmbedderError",
    "EmptySourceError",
    "FitConfig",
    "GroupBankVersion",
    "GroupFitConfig",
    "GroupReport",
    "GroupScoreConfig",
    "Growth",
    "NotFoundError",
    "Overview",
    "Preprocessing",
    "Pruned",
    "RejectedError",
    "Report",
    "SchemaError",
    "ScoreConfig",
    "SourceError",
    "Store",
    "StoreError",
    "ThresholdConfig",
    "WeightsError",
    "add",
    "clean",
    "compact",
    "embed",
    "export",
    "fit",
    "fit_groups",
    "ingest",
    "open_bank",
    "open_group_bank",
    "prune",
    "remove",
    "rethreshold",
    "score",
    "score_groups",
    "show",
    "use_version",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dn2' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
