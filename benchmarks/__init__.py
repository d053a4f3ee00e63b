"""Measurements side by side in one run: each prints its figures as `name: value` and keeps them in `results`."""
