"""The rows of flows, and the transactions that change them."""
