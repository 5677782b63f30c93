"""What the stores on SQLite and PostgreSQL have in common, said in statements and not in a driver's calls."""
