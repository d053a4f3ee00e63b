"""Files that hold many images, for tests of sources."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Member = tuple[str, bytes]


def tar_bytes(members: Iterable[Member | tarfile.TarInfo]) -> bytes:
    """A plain tar of these members, in their order."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def write_tar(path: Path, *members: Member | tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def parquet_bytes(columns: dict[str, Any], *, rows_of_group: int = 1000) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, row_group_size=rows_of_group)
    return bytes(sink.getvalue().to_pybytes())


def write_parquet(path: Path, columns: dict[str, Any], *, rows_of_group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet_bytes(columns, rows_of_group=rows_of_group))
    return path
