"""The same work on this transport, stock kombu, celery-redis-plus, BullMQ, Dramatiq and RQ, in one run."""


def main(words: list[str] | None = None) -> None:
    """Run the comparison; its imports are only there for who runs it, not for the systems under comparison."""
    from bench.broker import compare  # noqa: PLC0415 - see above

    compare.main(words)
