"""Containers of an ordinary user: what root does otherwise is done in a user namespace of his, in which he
is root and his subordinate ids are all others (docs/decisions/0012-containers-of-ordinary-users.md).

A start is a process that enters that namespace and a mount namespace of its own, mounts there what the
container needs, and becomes the engine. So every mount ends with the last process that sees it, and there
is none to be taken away. In the container the command's user is the submitting user, to whom the whole
image belongs; its other ids are subordinate ones.
"""
