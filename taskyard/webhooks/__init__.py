"""Webhooks: events of an app, delivered to the HTTP endpoints that subscribed."""
