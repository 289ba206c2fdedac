"""When: cron expressions, slots, time zones."""
