"""dn2 finds the images that do not look like the normal ones (DN2: Bergman, Cohen, Hoshen 2020, arXiv 2002.10445).

The steps, one after the other, are the library: `ingest`, `embed`, `fit`, `score`, and `clean` before `fit` where the
training images may hold anomalies. Each takes the record that the step before returned; whatever is large lies in the
store, and `show` tells what that is. Names are loaded when they are first used: `import dn2` is light. So each stands
below twice, for type checkers, which read no dictionary, and for Python; a test holds both together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dn2.config import AddConfig as AddConfig
    from dn2.config import CleanConfig as CleanConfig
    from dn2.config import EmbedConfig as EmbedConfig
    from dn2.config import FitConfig as FitConfig
    from dn2.config import GroupFitConfig as GroupFitConfig
    from dn2.config import GroupScoreConfig as GroupScoreConfig
    from dn2.config import ScoreConfig as ScoreConfig
    from dn2.config import ThresholdConfig as ThresholdConfig
    from dn2.errors import BankError as BankError
    from dn2.errors import ConfigError as ConfigError
    from dn2.errors import Dn2Error as Dn2Error
    from dn2.errors import EmbedderError as EmbedderError
    from dn2.errors import EmptySourceError as EmptySourceError
    from dn2.errors import NotFoundError as NotFoundError
    from dn2.errors import RejectedError as RejectedError
    from dn2.errors import SchemaError as SchemaError
    from dn2.errors import SourceError as SourceError
    from dn2.errors import StoreError as StoreError
    from dn2.errors import WeightsError as WeightsError
    from dn2.features.backbones import Backbone as Backbone
    from dn2.features.embed import embed as embed
    from dn2.groups.bank import open_group_bank as open_group_bank
    from dn2.groups.fit import fit_groups as fit_groups
    from dn2.groups.score import score_groups as score_groups
    from dn2.images.decoding import Preprocessing as Preprocessing
    from dn2.images.ingest import ingest as ingest
    from dn2.neighbors.versions import open_bank as open_bank
    from dn2.neighbors.versions import use_version as use_version
    from dn2.records import Anomalies as Anomalies
    from dn2.records import BankVersion as BankVersion
    from dn2.records import Cleaning as Cleaning
    from dn2.records import Compacted as Compacted
    from dn2.records import Dataset as Dataset
    from dn2.records import Embedded as Embedded
    from dn2.records import GroupBankVersion as GroupBankVersion
    from dn2.records import GroupReport as GroupReport
    from dn2.records import Growth as Growth
    from dn2.records import Pruned as Pruned
    from dn2.records import Report as Report
    from dn2.reports.export import export as export
    from dn2.scoring.anomalies import anomalies as anomalies
    from dn2.scoring.cleaning import clean as clean
    from dn2.scoring.fit import fit as fit
    from dn2.scoring.grow import add as add
    from dn2.scoring.grow import remove as remove
    from dn2.scoring.rethreshold import rethreshold as rethreshold
    from dn2.scoring.score import score as score
    from dn2.store.storage import Store as Store
    from dn2.upkeep.compact import compact as compact
    from dn2.upkeep.overview import Overview as Overview
    from dn2.upkeep.prune import prune as prune
    from dn2.upkeep.show import show as show

_HOMES = {
    "dn2.config": "AddConfig CleanConfig EmbedConfig FitConfig GroupFitConfig GroupScoreConfig ScoreConfig "
    "ThresholdConfig",
    "dn2.errors": "BankError ConfigError Dn2Error EmbedderError EmptySourceError NotFoundError RejectedError "
    "SchemaError SourceError StoreError WeightsError",
    "dn2.features.backbones": "Backbone",
    "dn2.features.embed": "embed",
    "dn2.groups.bank": "open_group_bank",
    "dn2.groups.fit": "fit_groups",
    "dn2.groups.score": "score_groups",
    "dn2.images.decoding": "Preprocessing",
    "dn2.images.ingest": "ingest",
    "dn2.neighbors.versions": "open_bank use_version",
    "dn2.records": "Anomalies BankVersion Cleaning Compacted Dataset Embedded GroupBankVersion GroupReport Growth "
    "Pruned Report",
    "dn2.reports.export": "export",
    "dn2.scoring.anomalies": "anomalies",
    "dn2.scoring.cleaning": "clean",
    "dn2.scoring.fit": "fit",
    "dn2.scoring.grow": "add remove",
    "dn2.scoring.rethreshold": "rethreshold",
    "dn2.scoring.score": "score",
    "dn2.store.storage": "Store",
    "dn2.upkeep.compact": "compact",
    "dn2.upkeep.overview": "Overview",
    "dn2.upkeep.prune": "prune",
    "dn2.upkeep.show": "show",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dn2' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
