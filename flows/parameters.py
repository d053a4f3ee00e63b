"""What each flow can be told: one validated model each, the same for the command line and Prefect's forms."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator, model_validator

from dn2.config import (
    AddConfig,
    CleanConfig,
    EmbedConfig,
    FitConfig,
    GroupFitConfig,
    GroupScoreConfig,
    Name,
    ScoreConfig,
    ThresholdConfig,
)
from dn2.errors import ConfigError
from dn2.fields import ARGUMENT, BASIC, PLACE, Config, Typed
from dn2.sources.opening import source_words
from dn2.sources.pattern import check_pattern


def check_base_url(url: str) -> str:
    """Return a web address without a slash at its end.

    Raises:
        ConfigError: a browser would not follow it.
    """
    if not re.fullmatch(r"https?://[^\s/?#<>()\"'\\]+(/[^\s?#<>()\"'\\]*)?", url):
        raise ConfigError(
            f"got {url!r}, expected the address under which the store is served, such as https://reports.example.com, "
            f"without query or fragment"
        )
    return url.rstrip("/")


BaseUrl = Annotated[str, AfterValidator(check_base_url)]
PathPattern = Annotated[str, AfterValidator(check_pattern)]

# Fields that several flows have: each is described once.
Store = Annotated[str, BASIC, PLACE, Field(min_length=1, description="Folder or fsspec URL where dn2 keeps its files.")]
Bank = Annotated[Name, BASIC, Field(description="Name of the bank.")]
Out = Annotated[str | None, BASIC, PLACE, Field(description="Local folder to copy the finished report to.")]
Rescore = Annotated[
    bool, BASIC, Field(description="Score again what only earlier versions of a bank have scored. Off by default.")
]
Groups = Annotated[
    bool, Field(description="Score the groups that got new images, with a bank of groups, instead of the images.")
]
Pattern = Annotated[
    PathPattern | None,
    BASIC,
    Field(description="Pattern of the paths below the source, such as {label}/{group_id}/*. By default none."),
]


class SourceParameters(Config):
    """Where images come from, and what is known about them."""

    source: Annotated[str, ARGUMENT, PLACE] = Field(min_length=1, description=f"Where the images are. {source_words()}")
    dataset: Name | None = Field(None, description="Name of the dataset. By default derived from the source.")
    pattern: Pattern = None
    split: str | None = Field(
        None, min_length=1, description="Only the rows of a table whose column split has this value. By default all."
    )


class IngestParameters(SourceParameters):
    """Where images come from and where dn2 keeps its files."""

    store: Store = "dn2-store"


class EmbedParameters(IngestParameters):
    """What to embed, and how."""

    embed: EmbedConfig = Field(default_factory=EmbedConfig, description="Backbone, engine and sizes.")


class CleanParameters(EmbedParameters):
    """Training images, and how they are cleaned."""

    clean: CleanConfig = Field(CleanConfig(rule="auto"), description="Which images are dropped.")

    @field_validator("clean")
    @classmethod
    def _has_a_rule(cls, clean: CleanConfig) -> CleanConfig:
        if clean.rule == "none":
            raise ConfigError("rule: got none, expected paper or auto: there is nothing to clean")
        return clean


class TrainParameters(EmbedParameters):
    """Normal images, and the bank to make of them."""

    bank: Bank = "default"
    clean: CleanConfig = Field(
        default_factory=CleanConfig, description="Which training images are dropped; by default none."
    )
    fit: FitConfig = Field(default_factory=FitConfig, description="How embeddings become a bank with a threshold.")


class TrainGroupsParameters(EmbedParameters):
    """Groups of normal images, and the bank to make of them."""

    bank: Bank = "groups"
    fit: GroupFitConfig = Field(
        default_factory=GroupFitConfig, description="How groups become a bank with thresholds for every size."
    )


class TellConfig(Config):
    """How Prefect is told of a finished report."""

    report_base_url: BaseUrl | None = Field(
        None, description="Web address under which the store is served. Links to reports start with it."
    )
    alert_rate: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="A batch with a larger share of anomalies emits the event dn2.batch.anomalous.",
    )


Tell = Annotated[TellConfig, Field(description="How Prefect is told of the report.")]


class BatchParameters(EmbedParameters):
    """A batch, the bank to compare it with, and who is told."""

    bank: Bank = "default"
    score: ScoreConfig = Field(default_factory=ScoreConfig, description="How the batch is scored and reported.")
    tell: Tell = TellConfig()


class ScoreParameters(BatchParameters):
    """New images, and the bank to compare them with."""

    out: Out = None


class ScoreGroupsParameters(EmbedParameters):
    """Groups of images, the bank of groups to compare them with, and who is told."""

    bank: Bank = "groups"
    score: GroupScoreConfig = Field(
        default_factory=GroupScoreConfig, description="How the groups are scored and reported."
    )
    tell: Tell = TellConfig()
    out: Out = None


class RethresholdParameters(Config):
    """A finished report, and what to change about it."""

    report: Annotated[str, ARGUMENT, PLACE] = Field(
        min_length=1, description="Folder that a report was exported to, its report.html, or a report's URI."
    )
    store: Annotated[str | None, BASIC, PLACE] = Field(
        None, min_length=1, description="The report's store, if it has moved. By default where the report says."
    )
    threshold: ThresholdConfig | None = Field(
        None, description="Score above which an image is anomalous. None: as it was; empty: the bank's own threshold."
    )
    false_discovery_rate: Annotated[float | None, BASIC, Typed("--fdr")] = Field(
        None, gt=0, lt=1, description="Share of normal images among the selected ones. None: as it was."
    )
    out: Annotated[str | None, BASIC, PLACE] = Field(
        None, description="Local folder to copy the new report to. By default the one the report was exported to."
    )
    tell: Tell = TellConfig()


class AddParameters(EmbedParameters):
    """Confirmed normal images, and the bank to add them to."""

    bank: Bank = "default"
    add: AddConfig = Field(default_factory=AddConfig, description="Limits of what is added.")


class RemoveParameters(Config):
    """A bank, and which images to remove from it."""

    store: Store = "dn2-store"
    bank: Bank = "default"
    image_ids: Annotated[list[str], ARGUMENT] = Field(
        min_length=1,
        description="Ids of the images to remove. Reports list the ids of images in the bank as neighbor_ids.",
    )


class CompactParameters(Config):
    """A store, and which datasets' manifest parts are merged."""

    store: Store = "dn2-store"
    dataset: Annotated[Name | None, ARGUMENT] = Field(
        None, description="Name of the dataset; dn2 show lists them. By default none, unless all are asked for."
    )
    all: Annotated[bool, BASIC] = Field(False, description="Every dataset of the store.")

    @model_validator(mode="after")
    def _says_which(self) -> CompactParameters:
        if self.all == (self.dataset is not None):
            got = "none" if self.dataset is None else f"{self.dataset!r} and all"
            raise ConfigError(f"dataset: got {got}, expected the name of a dataset, or all")
        return self


class PruneParameters(Config):
    """A store, and which of its unused files to delete."""

    store: Store = "dn2-store"
    reports: Annotated[int | None, BASIC] = Field(
        None,
        ge=0,
        description="Keep this many reports of each bank, cleanings, and lists of rejects of each dataset, the newest "
        "ones. By default all.",
    )
    age: Annotated[float | None, BASIC] = Field(
        None, ge=0, description="Delete those that are older than this many days. By default none is too old."
    )
    yes: Annotated[bool, BASIC] = Field(False, description="Delete. By default nothing is deleted, only listed.")


class UseVersionParameters(Config):
    """A bank, and which of its versions is to be the current one."""

    store: Store = "dn2-store"
    bank: Annotated[Name, BASIC] = Field("default", description="Name of the bank, of images or of groups.")
    version: Annotated[str, ARGUMENT] = Field(
        description="Version of the bank, or its first characters: four or more, and enough to fit only one version. "
        "dn2 show lists them."
    )


class ScoreNewParameters(BatchParameters):
    """A source of which only what is new is scored."""

    rescore: Rescore = False
    groups: Groups = False
    group_score: GroupScoreConfig = Field(
        default_factory=GroupScoreConfig, description="The same, where groups are scored."
    )


class DropParameters(ScoreNewParameters):
    """A delivery of images, and the bank to compare it with."""

    drop: str | None = Field(
        None, pattern="^[0-9a-f]{32}$", description="Identity of the drop, as in the event that announced it."
    )


class WatchParameters(Config):
    """Which prefixes are watched for drops."""

    sources: Annotated[str, ARGUMENT, PLACE] = Field(
        min_length=1, description="YAML file or fsspec URL that lists the sources."
    )


class NightlyParameters(WatchParameters):
    """Which sources are scored every night."""

    rescore: Rescore = False
