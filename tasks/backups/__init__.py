"""Backups: the newest dump of each database restored into a throw-away one, and checked."""
