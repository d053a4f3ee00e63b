"""Small frozen records: all that passes between the steps. Never arrays, images or tables."""

from dn2.records.banks import Anomalies, AnyBank, BankFiles, BankVersion, Fidelity, GroupBankVersion, GroupCells, Growth
from dn2.records.datasets import Cleaning, Cluster, Dataset, Embedded, EmbeddedShard, Shard
from dn2.records.doubts import Doubt
from dn2.records.drift import Drift, PastBatch
from dn2.records.drops import Drop, Look, SeenDrop
from dn2.records.embedders import EmbedderName
from dn2.records.reports import AnyReport, Decision, GroupReport, Report, Scored, ScoredShard, WorstGroup, WorstImage
from dn2.records.upkeep import Compacted, Pruned, Size, Stale

__all__ = [
    "Anomalies",
    "AnyBank",
    "AnyReport",
    "BankFiles",
    "BankVersion",
    "Cleaning",
    "Cluster",
    "Compacted",
    "Dataset",
    "Decision",
    "Doubt",
    "Drift",
    "Drop",
    "Embedded",
    "EmbeddedShard",
    "EmbedderName",
    "Fidelity",
    "GroupBankVersion",
    "GroupCells",
    "GroupReport",
    "Growth",
    "Look",
    "PastBatch",
    "Pruned",
    "Report",
    "Scored",
    "ScoredShard",
    "SeenDrop",
    "Shard",
    "Size",
    "Stale",
    "WorstGroup",
    "WorstImage",
]
