"""Small frozen records: all that passes between the steps. Never arrays, images or tables."""

from dn2.records.banks import AnyBank, BankFiles, BankVersion, Fidelity, GroupBankVersion, GroupCells, Growth
from dn2.records.datasets import Cleaning, Cluster, Dataset, Embedded, EmbeddedShard, Shard
from dn2.records.drops import Drop, Look, SeenDrop
from dn2.records.embedders import EmbedderName
from dn2.records.reports import AnyReport, Decision, GroupReport, Report, Scored, ScoredShard, WorstGroup, WorstImage
from dn2.records.upkeep import Compacted, Pruned, Size, Stale

__all__ = [
    "AnyBank",
    "AnyReport",
    "BankFiles",
    "BankVersion",
    "Cleaning",
    "Cluster",
    "Compacted",
    "Dataset",
    "Decision",
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
