"""The server as a process: its home, its sockets, its life, and the agent beside it."""
