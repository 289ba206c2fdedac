"""The application's timetable."""
