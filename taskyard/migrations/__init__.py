"""The schema of the library's tables, and what runs the revisions of every owner of tables."""
