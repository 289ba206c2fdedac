"""Python's collector of cycles, told what a worker is like: much that stays for good, and many objects that soon go."""

import gc
from functools import cache

YOUNG = 10_000  # new objects that may be there before the collector looks at them; a message makes about a hundred


@cache
def freeze_startup_objects() -> None:
    """Spare the collector what start-up has made, and let it look less often; once in a process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
