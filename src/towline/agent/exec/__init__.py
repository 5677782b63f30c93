"""Further commands inside running attempts: the agent starts them, owns them, and ends them.

service.py    hears what comes down the link, and finds the attempt
session.py    one command: its two directions, their windows, its end
inside.py     what a session runs, whatever runs it
local.py      a child of the agent: the command itself, or the engine's exec
descriptors.py  pipes and terminals without blocking
(an Engine's: agent/docker/exec.py)
"""
