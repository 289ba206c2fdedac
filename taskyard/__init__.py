"""A task platform on Celery and Redis or Valkey: typed tasks, leases, dead letters, history, schedules, webhooks."""
