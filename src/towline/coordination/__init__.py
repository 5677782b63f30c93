"""Who may lead a pool: the lease port, and what keeps a lease."""
