"""`celery -A tasks flows`: see flows, and steer them."""
