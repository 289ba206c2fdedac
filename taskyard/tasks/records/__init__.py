"""Records: keeping them bounded, and operations on many dead letters."""
