"""What was typed, as the fields of a flow's parameters."""

from __future__ import annotations

from flows.options import Clean, Engine


def embed_settings(
    backbone: str, engine: Engine, device: str, batch_size: int, shard_size: int
) -> dict[str, str | int]:
    """Return the settings of EmbedConfig."""
    return {
        "backbone": backbone,
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
