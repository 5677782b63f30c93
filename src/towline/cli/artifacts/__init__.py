"""``tow artifacts``: what tasks wrote under TOW_OUT, listed and fetched.

command.py    the arguments, and which elements and files are meant
receiving.py  files on their way onto this machine's disk, whatever their names say
"""
