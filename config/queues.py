"""The application's queues; those that every app has are in `taskyard.settings.queues`."""

from taskyard.settings import Queue

RECONCILIATION = Queue("reconciliation", profile="io")
MARKET_RESOLUTION = Queue("market-resolution", profile="io")
BACKUPS = Queue("backup-verification", profile="prefork")  # hours of CPU and disk, under a hard limit
