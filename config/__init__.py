"""What every process needs before it starts: settings, queues, database, logging."""
