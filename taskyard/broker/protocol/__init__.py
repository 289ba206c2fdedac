"""The wire format: header, envelope, JSON, and how an execution can end."""
