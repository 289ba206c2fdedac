"""`celery -A app schedules`: cron, interval and one-time schedules."""
