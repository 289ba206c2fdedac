"""Tests of `celery -A tasks up`."""
