"""Copy a finished report out of the store, whole or not at all, and never over something else."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

from dn2.errors import ConfigError, Dn2Error, StoreError
from dn2.records import Report
from dn2.reports.files import PAGE, SUMMARY
from dn2.store.documents import REPORT_SUMMARY
from dn2.store.storage import Store


def check_target(target: str | os.PathLike[str]) -> Path:
    """Return the absolute local folder a report may be exported to.

    Raises:
        ConfigError: it is a URL, a file, or a folder that holds something other than an exported report.
    """
    text = os.fspath(target)
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(f"out: got {text}, expected a local folder; in the store the report is at its URI already")
    path = Path(text.removeprefix("file://")).expanduser().resolve()  # a link stays a link, its folder is replaced
    if path.exists() and not path.is_dir():
        raise ConfigError(f"out: got {path}, which is a file, expected a folder")
    if path.is_dir() and any(path.iterdir()) and not _is_report(path):
        raise ConfigError(f"out: got {path}, which holds something else, expected a new or empty folder, or a report")
    return path


def _is_report(path: Path) -> bool:
    """Return True if a folder holds an exported report and nothing else."""
    try:
        document = json.loads((path / SUMMARY).read_bytes())
        parts = set(document["parts"])
        return document["schema"] == REPORT_SUMMARY and {e.name for e in path.iterdir()} <= {
            SUMMARY,
            PAGE,
            *parts,
        }
    except (OSError, ValueError, KeyError, TypeError):
        return False


def export(report: Report, store: str | os.PathLike[str] | Store, target: str | os.PathLike[str]) -> Path:
    """Copy a report's page, summary and Parquet parts to a local folder; return the folder.

    An older report in that folder is moved aside when the new one is whole, and then removed.

    Raises:
        ConfigError: the folder holds something else.
        NotFoundError: a file of the report is missing.
        StoreError: the report cannot be read, or the folder cannot be written.
    """
    store, path = Store.open(store), check_target(target)
    folder = report.uri.removeprefix(f"{store.uri}/")
    staged = path.parent / f".{path.name}-{uuid.uuid4().hex}"
    try:
        staged.mkdir(parents=True)
        for name in store.names(folder):
            store.download(f"{folder}/{name}", staged / name)
        if path.exists():
            old = path.parent / f".{path.name}-{uuid.uuid4().hex}"
            path.rename(old)
            staged.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            staged.rename(path)
    except OSError as error:
        if isinstance(error, Dn2Error):
            raise
        raise StoreError(f"out: cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return path
