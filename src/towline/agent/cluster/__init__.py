"""A machine as a node of a cluster: how it joins, and how it reaches the server."""
