"""Readers of the chain: EVM and Soroban contracts behind one Protocol."""
