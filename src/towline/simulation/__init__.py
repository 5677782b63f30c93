"""Pools in virtual time: workloads that are replayed, and servers, nodes and clients with faults."""
