"""Programs for those who work on the project: set-up, demo, generated papers."""
