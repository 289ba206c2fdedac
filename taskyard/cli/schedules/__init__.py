"""`celery -A app schedules`: what fires when."""
