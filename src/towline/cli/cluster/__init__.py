"""Commands of a cluster: its server and agents, who may use it, which one is meant, and what is used of its
nodes."""
