"""Cleaning that asks nobody: the images with the highest scores are dropped, as many as the contamination says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dn2.config import CleanConfig
from dn2.errors import ConfigError
from dn2.neighbors.bank import check_memory
from dn2.neighbors.exact import search
from dn2.scoring.judged import Images, Judged
from dn2.scoring.rows import dim_of
from dn2.scoring.scores import mean_distance
from dn2.scoring.typicality import drop_for, estimated_contamination, oddities

_PAPER_K, _PAPER_DROP = 2, 0.5


def ranked(images: Images, config: CleanConfig) -> Judged:
    """Return what the rule paper, or auto with clusters drop, says of training images.

    Raises:
        BankError: fewer than 20 different images, or for the rule paper too many for the memory budget.
        ConfigError: less would be dropped than is taken for anomalies.
    """
    sample = images.sample(images.drawn())
    contamination = config.contamination
    if contamination is None:
        contamination = estimated_contamination(sample)
    drop = _drop_fraction(config, contamination)
    parts = _paper(images, config) if config.rule == "paper" else oddities(images.blocks(), sample)
    scores = np.concatenate(list(images.counted(parts)))
    content_of = np.unique(images.keys[1], return_inverse=True)[1]
    count = int(content_of.max()) + 1
    return Judged(
        scores=scores,
        unit_of=content_of,
        impurities=round(contamination * count),
        dropped=round(drop * count),
        contamination=contamination,
        drop=drop,
        cluster_of=np.full(len(images), None, object),
    )


def _drop_fraction(config: CleanConfig, contamination: float) -> float:
    if config.drop_fraction is None:
        return max(contamination, _PAPER_DROP if config.rule == "paper" else drop_for(contamination))
    if config.drop_fraction < contamination:
        raise ConfigError(
            f"drop_fraction: got {config.drop_fraction:g}, expected at least the estimated contamination, "
            f"{contamination:.3g}; raise it, or give the contamination if you know it"
        )
    return config.drop_fraction


def _paper(images: Images, config: CleanConfig) -> Iterator[npt.NDArray[np.float32]]:
    """Yield (M,) float32, the mean squared distance of each image to its two nearest others."""
    check_memory(len(images), dim_of(images.embedded, images.store), config.bank_memory_gb)
    everything = np.concatenate([vectors for _, vectors in images.vectors()])
    for vectors, own in images.blocks():
        found = search(
            vectors,
            everything,
            _PAPER_K,
            query_keys=own,
            bank_keys=images.keys,
            memory_mb=config.search_memory_mb,
        )
        yield mean_distance(found.distances)
