"""Artifacts on their way to users: read from trees that containers have written, and trust nothing in them.

tree.py      what there is below a folder, and its files, without ever following a link
serving.py   answers to the server's calls
"""
