"""Artifacts between this node and its server: what its attempts wrote goes up before their success is told,
and what they have as input comes down.

talking.py    the server's routes for it, over HTTP
reading.py    a tree on this node, as the content of blobs
uploads.py    attempts that have succeeded and wait until the server has what they wrote
laying.py     a tree on this node, made of what a server has sent
copies.py     which trees are those that the server has, and how much of them stays
moves.py      whether artifacts move at all, and what does it
inputs.py     what a task names as input is there before it starts
"""
