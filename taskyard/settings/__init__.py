"""Settings, queues and profiles: what every process reads before it starts."""
