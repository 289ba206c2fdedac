"""The server: an embedded Valkey, and one client per process."""
