"""Workloads through the pool that production runs, in virtual time, and what is measured of it."""
