"""Shared by all commands: options, output, exit codes, the operator log."""
