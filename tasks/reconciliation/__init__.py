"""Reconciliation: what the database believes about positions, compared with what the chain holds."""
