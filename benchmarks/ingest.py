"""What does it take to list a million images? `make bench-ingest`.

Sources of 10,000 and of 1,000,000 images are ingested into an empty store, each by a process of its own: a table of
URIs as Parquet and as CSV, the folder itself, and a tar (of 200,000 members, not a million). The files are hard links
to a few others: a million names cost no million inodes, and ingest looks at names, sizes and times, not at pictures.

* `<form>_<images>_peak_mb`: the most memory the process has ever held (`VmHWM`), interpreter and imports included;
* `<form>_<images>_images_per_s`: images of the manifest over the seconds of `dn2.ingest`;
* `<form>_growth`: the peak of the large source over that of the small one; 1 is what is wanted.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from benchmarks.results import write_results

FEW, MANY, MANY_MEMBERS = 10_000, 1_000_000, 200_000
TARGET_MB, BASE_MB = 1000, 100  # at most so much at MANY images, and at most 1.5 times that at FEW, and BASE_MB
_LINKS = 50_000  # names of one file; ext4 allows 65,000
_PER_FOLDER = 1000


def main() -> None:
    """Measure, print and keep the figures."""
    with tempfile.TemporaryDirectory(prefix="dn2-bench-") as name:
        folder = Path(name)
        forms: dict[str, tuple[Callable[[Path, int], Path], int]] = {
            "parquet": (parquet_of, MANY),
            "csv": (csv_of, MANY),
            "folder": (folder_of, MANY),
            "tar": (tar_of, MANY_MEMBERS),
        }
        figures = {}
        for form, (make, many) in forms.items():
            peaks = []
            for count in (FEW, many):
                source = make(folder, count)
                peak, seconds = in_own_process(source, folder / f"store-{form}-{count}", count)
                peaks.append(peak)
                figures[f"{form}_{count}_peak_mb"] = peak
                figures[f"{form}_{count}_images_per_s"] = count / seconds
            figures[f"{form}_growth"] = peaks[1] / peaks[0]
            check(form, *peaks)
    write_results("ingest", figures, {"few": FEW, "many": MANY, "many_members_of_a_tar": MANY_MEMBERS})


def check(form: str, few: float, many: float) -> None:
    """Say whether the memory is what was promised."""
    kept = many < TARGET_MB and many < 1.5 * few + BASE_MB
    print(f"{form}: {few:.0f} MB for few images, {many:.0f} MB for many: {'as promised' if kept else 'TOO MUCH'}")


def folder_of(folder: Path, count: int) -> Path:
    """Return a folder tree with so many images, made if it is not there."""
    root = folder / f"images-{count}"
    if not root.exists():
        for _ in names(root, count):
            pass
    return root


def names(root: Path, count: int) -> Iterator[str]:
    """Make the images of a folder tree, and yield their paths below the benchmark's folder."""
    original = ""
    for number in range(count):
        place, image = divmod(number, _PER_FOLDER)
        path = root / f"{place:04d}" / f"{image:03d}.png"
        if image == 0:
            path.parent.mkdir(parents=True)
        if number % _LINKS:
            os.link(original, path)
        else:
            original = str(path)
            path.write_bytes(b"not looked at")
        yield str(path.relative_to(root.parent))


def table_of(folder: Path, count: int) -> Iterator[pa.Table]:
    """Yield pieces of a table of the images of a folder tree."""
    paths = (f"{number // _PER_FOLDER:04d}/{number % _PER_FOLDER:03d}.png" for number in range(count))
    root = folder_of(folder, count).name
    while piece := list(islice(paths, 100_000)):
        yield pa.table({"uri": [f"{root}/{path}" for path in piece], "group_id": [path[:4] for path in piece]})


def parquet_of(folder: Path, count: int) -> Path:
    """Return a Parquet table of so many images."""
    pieces = pa.concat_tables(table_of(folder, count))
    pq.write_table(pieces, folder / f"{count}.parquet", row_group_size=100_000)
    return folder / f"{count}.parquet"


def csv_of(folder: Path, count: int) -> Path:
    """Return a CSV table of so many images."""
    pc.write_csv(pa.concat_tables(table_of(folder, count)), folder / f"{count}.csv")
    return folder / f"{count}.csv"


def tar_of(folder: Path, count: int) -> Path:
    """Return a tar with so many members of a few bytes."""
    path = folder / f"{count}.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number // _PER_FOLDER:04d}/{number % _PER_FOLDER:03d}.png")
            member.size = 13
            tar.addfile(member, io.BytesIO(b"not looked at"))
            tar.members.clear()  # else it remembers them all
    return path


def in_own_process(source: Path, store: Path, count: int) -> tuple[float, float]:
    """Ingest a source; return the process's peak memory in MB, and the seconds that it took."""
    command = [sys.executable, "-m", "benchmarks.ingest", str(source), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (this very module)
    told = json.loads(done.stdout)
    if told["images"] != count:
        raise SystemExit(f"{source}: got {told['images']} images, expected {count}")
    return told["peak_mb"], told["seconds"]


def ingest(source: str, store: str) -> None:
    """Ingest a source in this process, and print what it took as JSON."""
    import dn2

    begun = time.perf_counter()
    dataset = dn2.ingest(source, store)
    seconds = time.perf_counter() - begun
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if peak is None:
        raise SystemExit("/proc/self/status: got no VmHWM, expected Linux")
    print(json.dumps({"images": dataset.images, "peak_mb": int(peak[1]) / 1000, "seconds": seconds}))


if __name__ == "__main__":
    if sys.argv[1:]:
        ingest(*sys.argv[1:])
    else:
        main()
