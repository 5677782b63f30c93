"""The pure part of the ``docker`` runtime: what an Engine is asked for, and what its answers mean."""
