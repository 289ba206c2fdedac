"""How messages travel: protocol, leases, transport, and the worker's side of it."""
