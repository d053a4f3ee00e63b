"""Cleaning that asks: dense groups apart stay in until someone says what they are, and little else is dropped.

What looks like no other image is dropped: its oddness (`dn2.scoring.oddness`) is above 4. As many as are that odd where
all images are normal are not taken for anomalies.
Kinds of images are never dropped unasked: a rare normal kind and a foreign one look the same. Once one is said
to be foreign, images that are nearer to it than to all others go with it. And as there are anomalies then, more of them
lie unfound among the others: of each kind what is in the fewest neighbourhoods goes too (`dn2.scoring.typicality`),
twenty times the share that was said to be foreign, but at most three tenths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dn2.checks import fingerprint
from dn2.config import CleanConfig
from dn2.errors import BankError, ConfigError
from dn2.records import Cluster
from dn2.scoring.contamination import MOST, interval
from dn2.scoring.judged import Images, Judged
from dn2.scoring.oddness import Kinds, Told
from dn2.scoring.typicality import SAMPLE, oddities
from dn2.scoring.units import places_of, units_of

_ODD = 4.0  # spreads above the median
_PLAIN = 0.005  # share of clean images that lie that far above it
_PER_FOREIGN, _MOST_OF_KIND = 20, 0.3  # see above
_COMPARED = 20_000  # images, at most, that are compared with each other to find near copies
_ID = 6  # hex digits
_TOLD = ("oddness", "kind", "foreign")  # of each image, see `Told`


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """What training images are like, whatever is answered: units, and kinds of images.

    Attributes:
        unit_of: (N,) int64.
        chosen: (S,) int64 rows of the sample, one image of each unit.
        kinds: in the sample.
    """

    unit_of: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64]
    kinds: Kinds


def examined(images: Images) -> Examined:
    """Return what training images are like.

    Raises:
        BankError: fewer than 20 units.
    """
    unit_of, chosen = _units(images)
    return Examined(unit_of, chosen, Kinds(images.sample(chosen)))


def asked(images: Images, seen: Examined, config: CleanConfig) -> Judged:
    """Return what is found of training images, with the clusters to ask about.

    Args:
        images: to clean.
        seen: what they are like.
        config: what is known already: clusters that are normal or not, the contamination, the share to drop.

    Raises:
        BankError: more than 40 % of the units are taken for anomalies.
        ConfigError: an answer names no cluster; or less would be dropped than is taken for anomalies.
    """
    unit_of, chosen, kinds = seen.unit_of, seen.chosen, seen.kinds
    names = _names(kinds, images.keys[0, chosen])
    foreign = [kind for kind, name in names.items() if name in config.drop_cluster]
    _check_answers(config, set(names.values()))
    found = _found(images, kinds, foreign, unit_of, chosen)
    count = len(found.oddness)
    undecided_kinds = [kind for kind, name in names.items() if name not in (*config.keep, *config.drop_cluster)]
    undecided = int((np.isin(found.kind, undecided_kinds) & ~found.foreign).sum())
    odd = int((~found.foreign & (found.oddness > _ODD)).sum())
    impure = int(found.foreign.sum()) + max(0, odd - round(_PLAIN * count))
    low, high = interval(impure, undecided, count)
    if config.contamination is None:
        _check_few(images, impure / count, config)
        contamination = impure / count
    else:
        contamination = low = high = config.contamination
    impurities = max(round(contamination * count) - (undecided if config.contamination is not None else 0), 0)
    impurities = max(impurities, int(found.foreign.sum()))
    odd_ones = found.foreign | (found.oddness > _ODD)
    if foreign:
        odd_ones |= _unfound(images, kinds, found, unit_of, undecided_kinds)
    dropped = max(impurities, int(odd_ones.sum()))
    if config.drop_fraction is not None:
        dropped = round(config.drop_fraction * count)
        if dropped < impurities:
            raise ConfigError(
                f"drop_fraction: got {config.drop_fraction:g}, expected at least what is taken for anomalies, "
                f"{impurities / count:.3g}; raise it, or keep a cluster"
            )
    within = 1 / (1 + np.exp(-np.clip(found.oddness, -15, 15)))
    scores = (within + odd_ones + found.foreign).astype(np.float32)
    kind_of = found.kind[unit_of]
    return Judged(
        scores=scores[unit_of],
        unit_of=unit_of,
        impurities=impurities,
        dropped=dropped,
        contamination=contamination,
        drop=dropped / count,
        cluster_of=np.array([names.get(int(kind)) for kind in kind_of], object),
        clusters=tuple(_clusters(names, kinds, kind_of, config)),
        interval=(low, high),
        units=count,
    )


def _units(images: Images) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (N,) int64 the unit of each image, and (S,) int64 rows of one image of each unit, at most 10,000.

    Units are copies and near copies; of more than 20,000 images near copies of a sample only, as that takes the
    products of all with all.
    """
    drawn = images.drawn(_COMPARED if len(images) <= _COMPARED else SAMPLE)
    places = places_of(images.rows["uri"].to_pylist())
    none = np.full(len(drawn), -1)
    near = units_of([images.sample(drawn).vectors], images.keys[1][drawn], none, places=places[drawn])
    contents, content_of = np.unique(images.keys[1], return_inverse=True)
    unit = len(drawn) + np.arange(len(contents))
    unit[content_of[drawn]] = near
    unit_of = np.unique(unit[content_of], return_inverse=True)[1]
    first = np.random.default_rng(0).permutation(np.unique(near, return_index=True)[1])
    chosen = drawn[np.sort(first[:SAMPLE])]
    images.check(len(chosen))
    return unit_of, chosen


def _names(kinds: Kinds, image_keys: npt.NDArray[np.int64]) -> dict[int, str]:
    """Return the id of each kind that is asked about."""
    return {
        kind: fingerprint(sorted(image_keys[kinds.of == kind].tolist()), length=_ID)
        for kind in range(kinds.count)
        if kinds.count > 1 and kind != kinds.main
    }


def _check_answers(config: CleanConfig, names: set[str]) -> None:
    for field, answers in (("keep", config.keep), ("drop_cluster", config.drop_cluster)):
        for name in answers:
            if name not in names:
                there = f"one of {', '.join(sorted(names))}" if names else "none: there are no clusters"
                raise ConfigError(f"{field}: got {name!r}, expected {there}")


def _check_few(images: Images, share: float, config: CleanConfig) -> None:
    if share > MOST:
        advice = "keep the clusters that are normal, or sort the images first" if config.drop_cluster else "sort them"
        raise BankError(
            f"cleaning {images.embedded.dataset.source}: {share:.0%} of the images would be taken for anomalies, "
            f"expected at most {MOST:.0%}: so many cannot be told from normal ones; {advice}"
        )


def _found(
    images: Images,
    kinds: Kinds,
    foreign: list[int],
    unit_of: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
) -> Told:
    """Return what is found of each unit: of its image in the sample, or of its first one."""
    sampled = kinds.told_of_sample(foreign)
    first = np.unique(unit_of, return_index=True)[1]
    if len(first) == len(chosen):
        order = np.argsort(unit_of[chosen])
        return Told(*(getattr(sampled, name)[order] for name in _TOLD))
    parts = list(images.counted(kinds.told(images.blocks(), foreign)))
    columns = []
    for name in _TOLD:
        of_units = np.concatenate([getattr(part, name) for part in parts])[first]
        of_units[unit_of[chosen]] = getattr(sampled, name)
        columns.append(of_units)
    return Told(*columns)


def _unfound(
    images: Images, kinds: Kinds, found: Told, unit_of: npt.NDArray[np.int64], undecided: list[int]
) -> npt.NDArray[np.bool_]:
    """Return (U,) which units are in so few neighbourhoods that they go, once there are anomalies."""
    oddity = np.concatenate(list(oddities(images.blocks(), kinds.sample)))[np.unique(unit_of, return_index=True)[1]]
    share = min(_MOST_OF_KIND, _PER_FOREIGN * float(found.foreign.mean()))
    gone = np.zeros(len(oddity), bool)
    for kind in range(kinds.count):
        if kind not in undecided:
            mine = np.flatnonzero((found.kind == kind) & ~found.foreign)
            gone[mine[np.argsort(-oddity[mine], kind="stable")[: int(share * len(mine))]]] = True
    return gone


def _clusters(
    names: dict[int, str], kinds: Kinds, kind_of: npt.NDArray[np.int64], config: CleanConfig
) -> Iterator[Cluster]:
    for kind, name in names.items():
        answer: Literal["keep", "drop", "undecided"] = "undecided"
        if name in config.keep:
            answer = "keep"
        elif name in config.drop_cluster:
            answer = "drop"
        yield Cluster(name, int((kind_of == kind).sum()), int((kinds.of == kind).sum()), answer)
