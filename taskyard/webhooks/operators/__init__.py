"""What operators see and do: listings, replays, test events, notices."""
