"""Restoring a dump into a scratch database."""
