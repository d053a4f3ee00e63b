"""Names of the files that make a report or a cleaning."""

from __future__ import annotations

GROUPS_FILE = "groups.parquet"  # of a report of groups
PAGE = "report.html"
PICTURE = "histogram.png"  # for Prefect's pages; report.html draws its own. Never exported: an image in a source
ROWS = "rows.parquet"  # of a cleaning
SUMMARY = "summary.json"  # written last: a folder without it is no report


def part_path(folder: str, number: int) -> str:
    """Return the path of one of the Parquet files with a row for every image, in a folder of scores or of a report."""
    return f"{folder}/part-{number:05d}.parquet"
