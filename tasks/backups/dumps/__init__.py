"""Dump files: found, and checked before anything is restored."""
