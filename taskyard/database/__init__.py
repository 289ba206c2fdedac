"""The database: engine, column types, pages by key, schema."""
