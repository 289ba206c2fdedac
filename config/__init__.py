"""The application's settings and queues."""
