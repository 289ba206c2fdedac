"""Tests of two projects on one broker."""
