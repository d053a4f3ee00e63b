"""Small frozen records: all that passes between the steps. Never arrays, images or tables."""

from dn2.records.banks import BankVersion, Fidelity, GroupBankVersion, Growth
from dn2.records.datasets import Cleaning, Dataset, Embedded, EmbeddedShard, Shard
from dn2.records.drops import Drop, Look, SeenDrop
from dn2.records.reports import Decision, GroupReport, Report, Scored, ScoredShard, WorstGroup, WorstImage

__all__ = [
    "BankVersion",
    "Cleaning",
    "Dataset",
    "Decision",
    "Drop",
    "Embedded",
    "EmbeddedShard",
    "Fidelity",
    "GroupBankVersion",
    "GroupReport",
    "Growth",
    "Look",
    "Report",
    "Scored",
    "ScoredShard",
    "SeenDrop",
    "Shard",
    "WorstGroup",
    "WorstImage",
]
