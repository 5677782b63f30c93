"""Which element comes next: the tree of queues, the order within one, limits, expected lengths."""
