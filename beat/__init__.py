"""The timetable and the scheduler that fires it."""
