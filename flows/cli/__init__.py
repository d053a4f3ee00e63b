"""The command line: its options come from the parameters of the flows, its words from what they return."""

from flows.cli.app import app, main

__all__ = ["app", "main"]
