"""`celery -A app up`: starts all processes of the platform, restarts them, and stops them in order."""
