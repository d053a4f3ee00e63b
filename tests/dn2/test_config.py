from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dn2.checks import check_name, fingerprint
from dn2.config import PILLOW_PIXEL_LIMIT, Config, EmbedConfig, FitConfig, ScoreConfig, ThresholdConfig
from dn2.errors import ConfigError
from dn2.fields import explain

MODELS = (EmbedConfig, FitConfig, ScoreConfig, ThresholdConfig)


@pytest.mark.parametrize("model", MODELS)
def test_unknown_field_is_refused_by_name(model: type[Config]):
    with pytest.raises(ValidationError) as caught:
        model(colour="red")
    error = explain(caught.value)
    assert isinstance(error, ConfigError)
    assert str(error) == "colour = 'red': Extra inputs are not permitted"


@pytest.mark.parametrize("model", MODELS)
def test_settings_are_frozen_and_survive_json(model: type[Config]):
    config = model()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, next(iter(model.model_fields)), 1)
    assert config == model(**json.loads(json.dumps(config.model_dump(mode="json"))))


# Field, the outermost values allowed, the nearest that are not.
BOUNDS: list[tuple[type[Config], str, list[Any], list[Any]]] = [
    (EmbedConfig, "weights_sha256", ["0" * 64], ["0" * 63, "G" * 64]),
    (
        EmbedConfig,
        "crop",
        ["auto", "center", "full", "tiles-1x2", "tiles-16x16"],
        ["", "tiles-0x2", "tiles-17x1", "half"],
    ),
    (EmbedConfig, "precision", ["auto", "float16"], ["bfloat16"]),
    (EmbedConfig, "batch_size", [1, 4096], [0, 4097, -1, 1.5, "many"]),
    (EmbedConfig, "shard_size", [1, 100_000], [0, 100_001]),
    (EmbedConfig, "decode_threads", [0, 256], [-1, 257]),
    (EmbedConfig, "thumbnail_px", [16, 512], [15, 513]),
    (EmbedConfig, "max_pixels", [1, PILLOW_PIXEL_LIMIT], [0, PILLOW_PIXEL_LIMIT + 1]),
    (EmbedConfig, "engine", ["auto", "openvino", "torch"], ["onnx", "", None]),
    (EmbedConfig, "device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"], ["gpu", "cuda:", "cuda:x", "cpu\n", "CPU"]),
    (FitConfig, "k", [1, 1000], [0, 1001]),
    (FitConfig, "metric", ["l2", "cosine"], ["euclid"]),
    (FitConfig, "scale", ["none", "local"], ["global"]),
    (FitConfig, "false_alarm_rate", [1e-9, 0.999], [0, 1, -0.1, float("nan"), "often"]),
    (FitConfig, "calibration", ["auto", "leave-one-out", "held-out"], ["none"]),
    (FitConfig, "units", ["auto", "images"], ["parts"]),
    (FitConfig, "index", ["auto", "exact", "ivf", "centroids"], ["hnsw", ""]),
    (FitConfig, "expected_queries", [1, 10**9], [0, -1]),
    (FitConfig, "nlist", [None, 1, 100_000], [0, -1, 1.5]),
    (FitConfig, "nprobe", [None, 1, 100_000], [0, -1]),
    (FitConfig, "recall", [0.01, 1], [0, 1.01, float("nan")]),
    (FitConfig, "centroids", [1, 100_000], [0, -1]),
    (FitConfig, "segment_rows", [None, 1, 10**9], [0, -1]),
    (FitConfig, "bank_memory_gb", [1e-9, 1e6], [0, -1, float("inf"), float("nan")]),
    (FitConfig, "search_memory_mb", [16], [15]),
    (FitConfig, "max_reject_rate", [0, 1], [-0.01, 1.01, float("nan")]),
    (FitConfig, "max_rejects", [0], [-1]),
    (ThresholdConfig, "false_alarm_rate", [1e-9, 0.999], [0, 1, -0.1, float("nan"), "often"]),
    (ThresholdConfig, "quantile", [1e-9, 1], [0, 1.001, float("nan")]),
    (ThresholdConfig, "value", [0, 1e38], [-1e-9, 1.1e38, float("inf"), float("nan")]),
    (ThresholdConfig, "budget", [1, 10**12], [0, -1, 1.5]),
    (ScoreConfig, "threshold", [ThresholdConfig(budget=3), ThresholdConfig()], ["high", 12.5, None]),
    (ScoreConfig, "false_discovery_rate", [1e-9, 0.999], [0, 1, -0.1, float("nan")]),
    (ScoreConfig, "report_images", [0, 500], [-1, 501]),
    (ScoreConfig, "bank_memory_gb", [1e-9, 1e6], [0, float("inf")]),
    (ScoreConfig, "search_memory_mb", [16], [15]),
    (ScoreConfig, "max_reject_rate", [0, 1], [-0.01, 1.01]),
    (ScoreConfig, "max_rejects", [0], [-1]),
]


@pytest.mark.parametrize(("model", "field", "good", "bad"), BOUNDS)
def test_bounds(model: type[Config], field: str, good: list[Any], bad: list[Any]):
    for value in good:
        assert getattr(model(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ValidationError) as caught:
            model(**{field: value})
        text = str(explain(caught.value))
        assert text.startswith(f"{field} = {value!r}: ") or text.startswith(f"{field}: got {value!r}, expected ")


def test_every_field_with_a_bound_is_in_the_list_above():
    listed = {(model, field) for model, field, _, _ in BOUNDS}
    everything = {(model, field) for model in MODELS for field in model.model_fields}
    assert everything - listed == {(EmbedConfig, name) for name in ("backbone", "weights", "download")}


@pytest.mark.parametrize(
    ("given", "meant"), [("tiles(2, 3)", "tiles-2x3"), ("tiles(2,3)", "tiles-2x3"), ("tiles-1x1", "full")]
)
def test_one_crop_has_one_name(given: str, meant: str):
    assert EmbedConfig(crop=given).crop == meant


@pytest.mark.parametrize("devices", ["cpu", "cuda:1", "cuda:0,cuda:1", "cpu,cpu"])
def test_several_devices_are_named_with_commas(devices: str):
    assert EmbedConfig(device=devices).device == devices


def test_all_bad_fields_are_explained_in_one_line():
    with pytest.raises(ValidationError) as caught:
        FitConfig(k=0, metric="euclid")
    assert str(explain(caught.value)) == (
        "k = 0: Input should be greater than or equal to 1; metric = 'euclid': Input should be 'l2' or 'cosine'"
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"budget": 3, "value": 0.0}, "value 0.0 and budget 3"),
        ({"false_alarm_rate": 0.01, "quantile": 0.9}, "false_alarm_rate 0.01 and quantile 0.9"),
        ({"false_alarm_rate": 0.1, "quantile": 0.9, "value": 1}, "false_alarm_rate 0.1 and quantile 0.9 and value 1.0"),
    ],
)
def test_two_rules_for_one_threshold_are_refused(given: dict[str, Any], text: str):
    with pytest.raises(ValidationError) as caught:
        ScoreConfig(threshold=given)
    expected = "expected at most one of false_alarm_rate, quantile, value, budget"
    assert str(explain(caught.value)) == f"threshold: got {text}, {expected}"


def other_values(model: type[Config]) -> list[tuple[str, Any]]:
    """Every field with a value that is not its default."""
    default = model().model_dump()
    return [
        (field, value)
        for owner, field, good, _ in BOUNDS
        if owner is model
        for value in [next(value for value in good if value != default[field])]
    ] + ([("backbone", "resnet18")] if model is EmbedConfig else [])


def test_shard_changes_its_name_exactly_when_its_content_does():
    """Batch size, engine and threads do not change scores; the backbone is in the folder's name."""
    default = EmbedConfig().shard_fingerprint()
    changing = {f for f, value in other_values(EmbedConfig) if EmbedConfig(**{f: value}).shard_fingerprint() != default}
    assert changing == {"thumbnail_px", "max_pixels"}


def test_report_changes_its_name_exactly_when_its_content_does():
    """Memory limits do not change a report."""
    default = ScoreConfig().report_fingerprint()
    changing = {
        f for f, value in other_values(ScoreConfig) if ScoreConfig(**{f: value}).report_fingerprint() != default
    }
    assert changing == {"threshold", "false_discovery_rate", "report_images", "max_reject_rate", "max_rejects"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON, JSON)
def test_fingerprints_are_equal_exactly_when_the_json_is(one: Any, other: Any):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert same == (fingerprint(one) == fingerprint(other))
    assert fingerprint(one) == fingerprint(json.loads(json.dumps(one)))


def test_fingerprint_is_the_same_on_every_machine_and_day():
    """Names of files in stores depend on it."""
    assert fingerprint({"b": [1, "ä"], "a": None}) == fingerprint({"a": None, "b": [1, "ä"]}) == "3d6f860d37ce3698"
    assert fingerprint([], length=8) == "4f53cda1"


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "x" * 100, "2024.01", "con"])
def test_good_names(name: str):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "-x", "_x", "a/b", "a b", "a\n", "\n", "ä", "x" * 101, "a\0", "٣"]
)
def test_bad_names(name: str):
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert str(caught.value).startswith(f"name {name!r} cannot be used: expected 1 to 100 letters, digits, dots")
