"""Everything that a store has, moved: from SQLite to PostgreSQL, into a file, and out of one."""
