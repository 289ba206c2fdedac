"""Stand-ins of the outside world and sample data, for demo, tests and benchmarks."""
