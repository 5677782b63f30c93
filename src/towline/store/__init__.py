"""What the pools remember: the port, and the stores behind it."""
