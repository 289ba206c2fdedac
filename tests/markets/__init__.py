"""Tests of the markets."""
