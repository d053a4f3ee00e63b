"""Names of the files that make a report, beside its Parquet parts."""

from __future__ import annotations

PAGE = "report.html"
SUMMARY = "summary.json"  # written last: a folder without it is no report
