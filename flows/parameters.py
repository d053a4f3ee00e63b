"""What each flow can be told: one validated model each, the same for the command line and Prefect's forms."""

from __future__ import annotations

from pydantic import Field

from dn2.config import Config, EmbedConfig, FitConfig, Name, ScoreConfig


class IngestParameters(Config):
    """Where images come from and where dn2 keeps its files."""

    source: str = Field(min_length=1, description="Folder or fsspec URL with images, searched recursively.")
    store: str = Field("dn2-store", min_length=1, description="Folder or fsspec URL where dn2 keeps its files.")
    dataset: Name | None = Field(None, description="Name of the dataset. By default derived from the source.")


class EmbedParameters(IngestParameters):
    """What to embed, and how."""

    embed: EmbedConfig = Field(default_factory=EmbedConfig, description="Backbone, engine and sizes.")


class TrainParameters(EmbedParameters):
    """Normal images, and the bank to make of them."""

    bank: Name = Field("default", description="Name of the bank.")
    fit: FitConfig = Field(default_factory=FitConfig, description="How embeddings become a bank with a threshold.")


class ScoreParameters(EmbedParameters):
    """New images, and the bank to compare them with."""

    bank: Name = Field("default", description="Name of the bank; its current version is used.")
    score: ScoreConfig = Field(default_factory=ScoreConfig, description="How the batch is scored and reported.")
    out: str | None = Field(None, description="Local folder to copy the finished report to.")
