"""Dead letters: written, read, run again, discarded."""
