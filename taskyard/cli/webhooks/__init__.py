"""`celery -A app webhooks`: endpoints and deliveries."""
