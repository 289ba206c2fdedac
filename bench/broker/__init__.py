"""The same work on this transport, stock kombu, celery-redis-plus, BullMQ, Dramatiq and RQ, in one run."""

from bench.broker.compare import main

__all__ = ["main"]
