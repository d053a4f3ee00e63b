"""The order of steps as Prefect flows, and the command line, which runs them: one way through."""

from __future__ import annotations

import os

# No connection that the user did not ask for; whoever sets these variables is obeyed.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# What the library logs belongs to the run's logs.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "dn2")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")  # outside of a run it goes nowhere else
