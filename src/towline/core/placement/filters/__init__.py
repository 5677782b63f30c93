"""Which nodes an element may go to, and why it may not go to the others."""
