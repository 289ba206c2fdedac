"""Profiles: what is expected of each database's backups."""
