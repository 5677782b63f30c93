"""What Towline must reach, measured as ratios in one run: ``python -m benchmarks [NAME...]``."""
