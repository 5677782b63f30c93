"""The scheduler core against the published ones: ``make bench-scheduler`` prints one table of it."""
