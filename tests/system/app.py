"""An app that commits events and is killed before the broker hears of them; a process of its own."""

import os
import signal
import sys

from taskyard.database.engine import open_session
from taskyard.webhooks import outbox
from taskyard.webhooks.outbox import emit


def main() -> None:
    """Emit as many events as the argument says, in one transaction, and die in its commit's hook."""
    setattr(outbox, "enqueue_deliveries", lambda _due: os.kill(os.getpid(), signal.SIGKILL))  # noqa: B010 - a name that the module only imports
    with open_session() as session, session.begin():
        for number in range(int(sys.argv[1])):
            emit(session, "market.resolved", {"n": number})
    raise AssertionError("it survived its commit")


if __name__ == "__main__":
    main()
