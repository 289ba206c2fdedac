"""Interim."""

from typing import Any

from config.settings import Settings


def transport_settings(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings for the transport."""
    return {
        "broker_url": settings.redis_url,
        "result_backend": settings.redis_url,
        "broker_transport_options": {
            "visibility_timeout": 30,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "global_keyprefix": settings.taskyard_key_prefix,
            "socket_timeout": 30,
            "max_connections": 100,
        },
    }
