"""Tests of the platform; each name is a promise."""
