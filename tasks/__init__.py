"""The work: typed tasks, their outcomes, and one folder per domain."""
