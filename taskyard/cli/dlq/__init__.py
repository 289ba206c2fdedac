"""`celery -A app dlq`: dead letters."""
