"""The whole platform: real worker processes, real brokers and databases, real HTTP receivers."""
