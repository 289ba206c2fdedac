"""Tests of Celery's own options and of the logging of its processes."""
