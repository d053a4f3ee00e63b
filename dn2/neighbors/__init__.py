"""Nearest neighbours: exact search and the bank."""
