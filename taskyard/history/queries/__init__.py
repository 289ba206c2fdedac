"""Questions to the history: runs, logs, statistics, lost runs."""
