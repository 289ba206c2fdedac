"""Checks of a restored database, and what they found."""
