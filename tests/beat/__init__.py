"""Tests of schedules: slots, the lease, the fires, the command line."""
