"""Measurements: programs that print the machine, the versions and a Markdown table. None of them is a test."""
