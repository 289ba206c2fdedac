"""Start `celery` processes in a fraction of the time: forked off a process that has imported what they all need."""
