"""Celery's and kombu's own integration tests, on our transport and on kombu's: a difference has a reason, or fails."""
