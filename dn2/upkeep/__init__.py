"""Keeping house: what takes how much, merging manifest parts, and removing what nobody needs."""
