"""`celery -A app up`: starts all processes of the platform, keeps them running, and ends them in order."""
