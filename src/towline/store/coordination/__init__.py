"""Which servers there are, and who has the lease of which pool: rows for any server."""
