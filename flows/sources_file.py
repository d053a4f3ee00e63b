"""The sources file: what is scored every night, and where drops are awaited. One YAML file, validated at the gate."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from dn2.config import EmbedConfig, GroupScoreConfig, Name, ScoreConfig
from dn2.errors import ConfigError
from dn2.fields import Config, explain, short
from dn2.sources.source import SUFFIXES
from dn2.store.files import locate, read_file, relative_to
from flows.parameters import Groups, PathPattern, ScoreNewParameters, SourceParameters, TellConfig

_LARGEST = 1_000_000  # characters: thousands of sources


class NightlySource(SourceParameters):
    """A source whose new images are scored every night."""

    bank: Name = Field("default", description="Name of the bank to compare them with.")
    groups: Groups = False


class WatchedPrefix(Config):
    """A folder or prefix below which drops arrive."""

    prefix: str = Field(min_length=1, description="Folder or fsspec URL below which drops arrive.")
    bank: Name = Field("default", description="Name of the bank to compare them with.")
    unit: Literal["folder", "prefix"] = Field(
        "folder",
        description="folder: each folder directly below the prefix is a drop; prefix: all new images below it are "
        "one drop.",
    )
    marker: str | None = Field(
        None,
        min_length=1,
        pattern=r"^[^/]+$",
        description="Name of the file that marks a drop as complete. Without one, a drop is complete when it has "
        "stopped changing.",
    )
    settle_minutes: float = Field(
        10.0, ge=0, description="Without a marker: how long a drop must stay unchanged, over at least two looks."
    )
    again_minutes: float = Field(
        60.0, gt=0, description="A drop that was announced but not scored is announced again after this time."
    )
    pattern: PathPattern | None = Field(
        None, description="Pattern of the paths below a drop, such as {label}/{group_id}/*. By default none."
    )
    groups: Groups = False

    @field_validator("marker")
    @classmethod
    def _marker_is_no_image(cls, marker: str | None) -> str | None:
        if marker is not None and marker.lower().endswith(SUFFIXES):
            raise ConfigError(f"got {marker!r}, which would be scored as an image, expected another ending")
        return marker

    @model_validator(mode="after")
    def _marker_of_a_folder(self) -> WatchedPrefix:
        if self.unit == "prefix" and self.marker is not None:
            raise ConfigError(
                f"got marker {self.marker!r} with unit prefix, where it would stay and mark half of the next delivery: "
                f"expected unit folder, or no marker"
            )
        return self


class SourcesFile(Config):
    """What is scored every night, where drops are awaited, and how."""

    store: str = Field(min_length=1, description="Folder or fsspec URL where dn2 keeps its files.")
    nightly: tuple[NightlySource, ...] = Field((), description="Sources whose new images are scored every night.")
    watch: tuple[WatchedPrefix, ...] = Field((), description="Prefixes that are watched for drops.")
    embed: EmbedConfig = Field(default_factory=EmbedConfig, description="Engine and sizes, for all nightly sources.")
    score: ScoreConfig = Field(default_factory=ScoreConfig, description="Limits and reports, for all of them.")
    group_score: GroupScoreConfig = Field(
        default_factory=GroupScoreConfig, description="The same for sources whose groups are scored."
    )
    tell: TellConfig = Field(default_factory=TellConfig, description="How Prefect is told of reports.")

    def batches(self, *, rescore: bool) -> tuple[ScoreNewParameters, ...]:
        """Return what to score for each nightly source, in the order of the file."""
        shared = {name: getattr(self, name) for name in ("store", "embed", "score", "group_score", "tell")}
        return tuple(
            ScoreNewParameters.model_validate({**dict(one), **shared, "rescore": rescore}) for one in self.nightly
        )


class _PlainLoader(yaml.SafeLoader):
    """Refuses two values of one key, of which the last would win, and aliases, which can make a small file endless."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node, which is no alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "got an alias, expected what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping none of whose keys stands there twice."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, times in keys.items():
            if times > 1:
                raise yaml.constructor.ConstructorError(None, None, f"got {key!r} {times} times", node.start_mark)
        return super().construct_mapping(node, deep)


def read_sources(url: str) -> SourcesFile:
    """Return the sources file at a path or URL; relative paths in it are taken from the folder it lies in.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is not what a sources file must be; the message names each bad field.
        SourceError: it cannot be read.
    """
    uri = locate(url).uri
    try:
        content = yaml.load(_text(uri), _PlainLoader)  # noqa: S506  (a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"sources file {uri}: got no YAML, expected a list of sources: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"sources file {uri}: got {short(content)}, expected the fields {', '.join(SourcesFile.model_fields)}"
        )
    try:
        file = SourcesFile.model_validate(_absolute(content, uri))
    except ValidationError as error:
        raise ConfigError(f"sources file {uri}: {explain(error)}") from error
    if not (file.nightly or file.watch):
        raise ConfigError(f"sources file {uri}: got neither nightly nor watch, expected a list of at least one source")
    _check_once(uri, "nightly", [(_place(one), one.bank) for one in file.nightly])
    _check_once(uri, "watch", [(one.prefix, one.bank) for one in file.watch])
    return file


def _text(uri: str) -> str:
    text = read_file(uri, f"sources file {uri}")
    if len(text) > _LARGEST:
        raise ConfigError(f"sources file {uri}: got {len(text):,} characters, expected at most {_LARGEST:,}")
    return text


def _absolute(content: dict[str, Any], uri: str) -> dict[str, Any]:
    """Return the content with every place in it as an absolute URI."""

    def resolved(entry: Any, name: str, place: str) -> Any:
        if not isinstance(entry, dict) or not isinstance(entry.get(name), str) or not entry[name]:
            return entry  # the model says what is wrong with it
        try:
            return {**entry, name: relative_to(uri, entry[name])}
        except ConfigError as error:
            raise ConfigError(f"sources file {uri}: {place}{name}: {error}") from error

    for group, name in (("nightly", "source"), ("watch", "prefix")):
        if isinstance(content.get(group), list):
            entries = [resolved(entry, name, f"{group}.{row}.") for row, entry in enumerate(content[group])]
            content = {**content, group: entries}
    absolute: dict[str, Any] = resolved(content, "store", "")
    return absolute


def _place(one: NightlySource) -> str:
    return one.source if one.split is None else f"{one.source} with split {one.split!r}"


def _check_once(uri: str, group: str, keys: list[tuple[str, str]]) -> None:
    for (place, bank), times in Counter(keys).items():
        if times > 1:
            raise ConfigError(
                f"sources file {uri}: {group}: got {place} with bank {bank} {times} times, expected each pair once"
            )
