"""Benchmarks of a server with nodes that have joined it over TLS."""
