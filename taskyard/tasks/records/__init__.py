"""Maintenance tasks: retention, and bulk operations on dead letters."""
