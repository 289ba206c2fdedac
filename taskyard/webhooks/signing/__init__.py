"""Signatures, and the keys they are made with."""
