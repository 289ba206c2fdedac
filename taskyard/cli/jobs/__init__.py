"""`celery -A app jobs`: runs and their attempts."""
