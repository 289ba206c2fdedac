"""The leases of this process, and what it has still to tell the broker of its executions."""
