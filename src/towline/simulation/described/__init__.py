"""What a user describes for a simulation: the nodes of a cluster, and the policies to compare."""
