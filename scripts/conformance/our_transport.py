"""A pytest plugin: `redis://` is our transport in the process that loads it."""

from kombu.transport import TRANSPORT_ALIASES

TRANSPORT_ALIASES["redis"] = "taskyard.broker.transport.transport:Transport"
