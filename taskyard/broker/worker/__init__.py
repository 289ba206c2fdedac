"""The worker's side: from Celery's consumer to the pool, and how an execution ends."""
