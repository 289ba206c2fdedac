"""What follows from what, decided on rows alone: no server is asked."""
