"""Names of the files that make a report, beside its Parquet parts."""

from __future__ import annotations

PAGE = "report.html"
PICTURE = "histogram.png"  # for those who show a report elsewhere; the page draws its own
SUMMARY = "summary.json"  # written last: a folder without it is no report
