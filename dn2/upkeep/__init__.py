"""Keeping house: what takes how much, merging manifest parts, and deleting unused files."""
