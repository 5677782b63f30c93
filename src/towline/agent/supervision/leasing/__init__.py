"""The node lease on the node: what the agent is granted, and how keeper and supervisor enforce it."""
