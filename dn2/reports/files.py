"""Names of the files that make a report or a cleaning."""

from __future__ import annotations

import re

GROUPS_FILE = "groups.parquet"  # of a report of groups
PAGE = "report.html"
PICTURE = "histogram.png"  # for Prefect's pages; report.html draws its own. Never exported: an image in a source
ROWS = "rows.parquet"  # of a cleaning
SUMMARY = "summary.json"  # written last: a folder without it is no report


def part_path(folder: str, number: int) -> str:
    """Return the path of one of the Parquet files with a row for every image, in a folder of scores or of a report."""
    return f"{folder}/part-{number:05d}.parquet"


def are_parts(names: object) -> bool:
    """Return whether this is a list of names that Parquet files of a report can have, whoever wrote it."""
    form = re.compile(r"groups\.parquet|part-[0-9]{5,}\.parquet")
    return isinstance(names, list) and all(isinstance(name, str) and form.fullmatch(name) for name in names)
