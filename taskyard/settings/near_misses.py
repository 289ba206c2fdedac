"""Tells a mistyped setting from a variable of another program that begins alike."""

from collections.abc import Collection
from difflib import get_close_matches

OURS_ALONE = "TASKYARD_"  # no other program has variables of this prefix
SIMILARITY = 0.85  # of two names with a typing error between them


def near_miss(name: str, known: Collection[str]) -> str | None:
    """
    Return the setting that was probably meant; None: the variable is another program's.

    A name is near when it is spelt almost like a setting, or leaves out some of its words.

    >>> known = ["WORKER_COUNT", "WORKER_QUEUE_CONCURRENCY", "BACKUP_DUMP_PATH"]
    >>> near_miss("WORKER_QUEUE_CONCURENCY", known), near_miss("WORKER_CONCURRENCY", known)
    ('WORKER_QUEUE_CONCURRENCY', 'WORKER_QUEUE_CONCURRENCY')
    >>> near_miss("WORKER_TIMEOUT", known), near_miss("BACKUP_BUCKET", known)
    (None, None)
    """
    if close := get_close_matches(name, known, 1, SIMILARITY):
        return close[0]
    words = name.split("_")
    return next((each for each in sorted(known) if len(words) > 1 and set(words) <= set(each.split("_"))), None)
