"""How the commands look at a terminal, in a pipe and in a log."""
