"""Tests of the audit, of dead letters and of the migrations."""
