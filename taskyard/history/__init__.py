"""What happened: runs, attempts and dead letters in SQL."""
