"""The writer: moves the event stream into SQL."""
