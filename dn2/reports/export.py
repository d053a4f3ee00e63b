"""Copy a finished report out of the store, whole or not at all, and never over something else."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from dn2 import layout
from dn2.errors import ConfigError, Dn2Error, StoreError
from dn2.layout import PAGE, SUMMARY
from dn2.records import AnyReport, GroupReport
from dn2.store.documents import GROUP_REPORT_SUMMARY, REPORT_SUMMARY, as_record, read_document
from dn2.store.storage import Store

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux's renameat2


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a summary says of the report's Parquet files."""

    parts: tuple[layout.ReportPart, ...]


def check_target(target: str | os.PathLike[str], store: str | os.PathLike[str] | Store) -> Path:
    """Return the absolute local folder a report may be exported to.

    Raises:
        ConfigError: it is a URL, a file, a folder that holds something other than an exported report, a report in the
            folder where the command runs, or a place inside the store.
    """
    text = os.fspath(target)
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(f"out: got {text}, expected a local folder; in the store the report is at its URI already")
    path = Path(text.removeprefix("file://")).expanduser().resolve()  # a link stays a link, its folder is replaced
    root = Store.open(store).local("")
    if root is not None and path.is_relative_to(root.resolve()):
        raise ConfigError(f"out: got {path}, which lies in the store {root}, expected a folder outside of it")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"out: got {path}, which is a file, expected a folder")
    if path.is_dir() and any(path.iterdir()):
        if not _is_report(path):
            raise ConfigError(f"out: got {path}, which holds other files, expected a new or empty folder, or a report")
        if Path.cwd().is_relative_to(path):
            raise ConfigError(f"out: got {path}, a report in which this command runs: run it in another folder")
    return path


def _is_report(path: Path) -> bool:
    """Return True if a folder holds an exported report and nothing else."""
    try:
        document = json.loads((path / SUMMARY).read_bytes())
        known = {SUMMARY, PAGE, *map(layout.check_report_part, document["parts"])}
        is_one = document["schema"] in (REPORT_SUMMARY, GROUP_REPORT_SUMMARY)
        return is_one and {entry.name for entry in path.iterdir()} <= known
    except (OSError, ValueError, KeyError, TypeError):
        return False


def export(report: AnyReport, store: str | os.PathLike[str] | Store, target: str | os.PathLike[str]) -> Path:
    """Copy a report's page, summary and Parquet parts to a local folder; return the folder.

    An older report in that folder is replaced in one step, when the new one is whole.

    Raises:
        ConfigError: the folder holds something else, or lies in the store.
        NotFoundError: a file of the report is missing.
        SchemaError: the report's summary is damaged.
        StoreError: the report cannot be read, or the folder cannot be written.
    """
    store = Store.open(store)
    path = check_target(target, store)
    folder = report.uri.removeprefix(f"{store.uri}/")
    if layout.report.parse(folder) is None:
        raise ConfigError(f"report: got {report.uri}, expected one in store {store.uri}")
    kind = GROUP_REPORT_SUMMARY if isinstance(report, GroupReport) else REPORT_SUMMARY
    summary = f"{folder}/{SUMMARY}"
    document = read_document(store, summary, kind, ["parts"])
    parts = as_record(_Parts, document, store.uri_of(summary)).parts
    staged = path.parent / f".{path.name}-{uuid.uuid4().hex}"
    try:
        staged.mkdir(parents=True)
        for name in (*parts, PAGE, SUMMARY):
            store.download(f"{folder}/{name}", staged / name)
        if not path.exists():
            staged.rename(path)
        elif any(path.iterdir()):
            shutil.copymode(path, staged)
            _exchange(staged, path)
        else:  # the folder stays the same one: somebody may stand in it
            for name in (*parts, PAGE, SUMMARY):
                (staged / name).rename(path / name)
    except OSError as error:
        if isinstance(error, Dn2Error):
            raise
        raise StoreError(f"out: cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return path


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change places: in one step where Linux and the file system can, else in two.

    Raises:
        OSError: they cannot be moved; they are where they were.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}-old")
    other.rename(aside)
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise
    aside.rename(one)
