"""Typed tasks: the app, payloads, policies, outcomes."""
