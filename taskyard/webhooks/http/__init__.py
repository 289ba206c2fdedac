"""Guarded HTTP: requests that hostile receivers can neither hold nor redirect into our network."""
