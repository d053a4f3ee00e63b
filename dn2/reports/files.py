"""Names of the files that make a report, beside its Parquet parts."""

from __future__ import annotations

PAGE = "report.html"
PICTURE = "histogram.png"  # for Prefect's pages; report.html draws its own. Never exported: an image in a source
SUMMARY = "summary.json"  # written last: a folder without it is no report
