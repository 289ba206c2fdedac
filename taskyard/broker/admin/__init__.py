"""What operators ask of queues: control, facts, lookups, Flower."""
