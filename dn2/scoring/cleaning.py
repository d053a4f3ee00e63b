"""Clean a training set: score every image against the others, drop the oddest, and write down which and why."""

from __future__ import annotations

import os
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from dn2 import layout
from dn2.checks import fingerprint
from dn2.config import CleanConfig
from dn2.errors import ConfigError, SchemaError
from dn2.records import Cleaning, Embedded
from dn2.reports.cleaning import finished_cleaning, write_cleaning
from dn2.scoring.asking import asked, examined
from dn2.scoring.judged import Images
from dn2.scoring.ranking import ranked
from dn2.scoring.rows import check_rejects, described
from dn2.store.schemas import CLEANING
from dn2.store.storage import Store
from dn2.store.tables import read_table, writing

log = getLogger(__name__)
_FEW = 2_000  # images: below, clusters of anomalies are too small to be estimated


def clean(embedded: Embedded, store: str | os.PathLike[str] | Store, *, config: CleanConfig | None = None) -> Cleaning:
    """Tell the typical training images from the others, without labels; write rows.parquet and report.html.

    Rule `paper`: the mean squared distance to the 2 nearest others, of which the larger half is dropped (DN2,
    Bergman, Cohen, Hoshen 2020). Rule `auto`: see `dn2.scoring.asking`, and `dn2.scoring.typicality` for what nobody
    is asked about. Both compare embeddings of length 1.

    Args:
        embedded: what `embed` returned.
        store: where dn2 keeps its files.
        config: rule, contamination, share to drop; by default the rule auto.

    Returns:
        the finished cleaning; the same images and settings give the same one, which is made once.

    Raises:
        BankError: fewer than 20 different images; or for the rule paper too many for the memory budget; or more than
            40 % are taken for anomalies.
        ConfigError: the rule is none, or less would be dropped than is taken for anomalies, or an answer names no
            cluster.
        RejectedError: too many images could not be read; their list is written to the store first.
        StoreError: the store cannot be read or written.
    """
    store, config = Store.open(store), config or CleanConfig(rule="auto")
    if config.rule == "none":
        raise ConfigError("rule: got none, expected paper or auto: there is nothing to clean")
    check_rejects(embedded, store, config)
    folder = layout.cleaning(fingerprint([embedded.embedder, described(embedded), config.fingerprint()]))
    done = finished_cleaning(store, folder) or _made(embedded, store, folder, config)
    _warn(done)
    return done


def _made(embedded: Embedded, store: Store, folder: str, config: CleanConfig) -> Cleaning:
    images = Images(embedded, store)
    judged = asked(images, examined(images), config) if config.asks else ranked(images, config)
    rows, order = judged.table(images.rows)
    dropped = int((~rows["kept"].to_numpy()).sum())
    low, high = judged.interval or (None, None)
    cleaning = Cleaning(
        uri=store.uri_of(folder),
        source=embedded.dataset.source,
        rule=config.rule,
        images=len(images),
        kept=len(images) - dropped,
        dropped=dropped,
        contamination=judged.contamination,
        estimated=config.contamination is None,
        drop_fraction=judged.drop,
        low=low,
        high=high,
        units=judged.units,
        clusters=judged.clusters,
    )
    between = {} if judged.interval is None else {"contamination_low": low, "contamination_high": high}
    footer = {
        "embedder": embedded.embedder,
        **config.model_dump(mode="json"),
        "contamination": judged.contamination,
        **between,
    }
    with writing(store, layout.cleaning_rows(cleaning.fingerprint), CLEANING, footer) as file:
        file.write({name: rows[name].combine_chunks() for name in CLEANING.columns.names})
    write_cleaning(cleaning, store, folder, rows=rows, order=order, config=config)
    return cleaning


def _warn(cleaning: Cleaning) -> None:
    for warning in cleaning.warnings:
        log.warning("cleaning %s: %s", cleaning.source, warning)
    if cleaning.estimated and cleaning.high is None and cleaning.images < _FEW:
        log.warning(
            "cleaning %s: a contamination of %.1f%% is a guess, from only %d images; give it if you know it",
            cleaning.source,
            100 * cleaning.contamination,
            cleaning.images,
        )


def kept_rows(rows: Any, store: Store, cleaning: Cleaning) -> npt.NDArray[np.bool_]:
    """Return which of N images a cleaning keeps.

    Args:
        rows: an Arrow table of them, see `image_rows`.
        store: where the cleaning lies.
        cleaning: what `clean` returned for them.

    Raises:
        ConfigError: it is a cleaning of other images.
        SchemaError: its table is damaged.
    """
    path = layout.cleaning_rows(cleaning.fingerprint)
    try:
        table = read_table(store, path, CLEANING, ["image_id", "kept"])
    except SchemaError as error:
        raise SchemaError(f"{error}; delete that file: the cleaning is made again") from error
    kept = dict(zip(table["image_id"].to_pylist(), table["kept"].to_pylist(), strict=True))
    names = rows["image_id"].to_pylist()
    if kept.keys() != set(names):
        raise ConfigError(
            f"cleaning {cleaning.uri}: got one of other images, expected that of the {len(names)} images to fit; "
            f"clean them again"
        )
    return np.fromiter((kept[name] for name in names), bool, len(names))
