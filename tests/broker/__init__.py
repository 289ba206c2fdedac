"""Tests of the transport: each on real Redis 7 and real Valkey."""
