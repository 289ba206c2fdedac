"""Entry points for people: commands under `celery -A app`."""
