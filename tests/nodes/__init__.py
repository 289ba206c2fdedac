"""The nodes of a platform under test, for pytest-celery: processes, or containers with CELERY_NODES=docker."""
