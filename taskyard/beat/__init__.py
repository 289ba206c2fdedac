"""The scheduler, and how code and operators define schedules."""
