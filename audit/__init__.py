"""The application's audit: what is recorded and masked, and what administrators did."""
