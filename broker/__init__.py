"""How messages travel: connection options, the embedded Valkey server."""
