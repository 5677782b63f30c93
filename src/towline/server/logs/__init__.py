"""Output that nodes have shipped: how it is taken, read, and in time removed."""
