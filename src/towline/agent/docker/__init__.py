"""Containers of a Docker or Podman engine: the engine starts and keeps them, the agent follows them."""
