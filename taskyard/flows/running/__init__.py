"""A step at work: its execution, what its handler may ask for, and the sweeper that sends it again."""
