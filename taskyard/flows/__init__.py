"""Flows: durable graphs of tasks that always end in a known state."""
