"""Towline: a distributed task scheduler for containers."""

__version__ = "0.1.0"
