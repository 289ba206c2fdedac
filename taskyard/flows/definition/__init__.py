"""Writing a flow: steps, groups, polls, and a Celery canvas as a flow."""
