"""What was typed, as the fields of a flow's parameters."""

from __future__ import annotations

from flows.options import Clean, Engine


def embed_settings(
    backbone: str,
    crop: str,
    weights: str | None,
    weights_sha256: str | None,
    download: bool,
    engine: Engine,
    device: str,
    batch_size: int,
    shard_size: int,
) -> dict[str, str | int | None]:
    """Return the settings of EmbedConfig."""
    return {
        "backbone": backbone,
        "crop": crop,
        "weights": None if weights is None else absolute(weights),
        "weights_sha256": weights_sha256,
        "download": download,
        "engine": engine.value,
        "device": device,
        "batch_size": batch_size,
        "shard_size": shard_size,
    }


def given(**settings: float | None) -> dict[str, float]:
    """Return the settings that were given: those that were not keep their default."""
    return {name: value for name, value in settings.items() if value is not None}


def clean_settings(rule: Clean, contamination: float | None, drop: float | None) -> dict[str, str | float | None]:
    """Return the settings of CleanConfig."""
    return {"rule": rule.value, "contamination": contamination, "drop_fraction": drop}


def absolute(url: str) -> str:
    """Return a path or URL as an absolute URI: a flow may run in another folder than this one."""
    from dn2.store.files import locate

    return locate(url).uri


def source_settings(
    source: str, store: str, dataset: str | None, pattern: str | None, split: str | None
) -> dict[str, str | None]:
    """Return the fields of IngestParameters."""
    places = {"source": absolute(source), "store": absolute(store)}
    return {**places, "dataset": dataset, "pattern": pattern, "split": split}
