"""``tow exec``: a command inside what runs.

command.py   the arguments, and which element is meant
passing.py   what goes in and out, signals and the window's size
terminal.py  the user's terminal, raw while the command has it, and given back in any case
"""
