"""What people install: the wheel in an environment, and beside packages, that are not ours."""
