"""The pool machine: commands in, changes out (see ``machine.py``, the one entrance)."""

from towline.core.pool.machine import Pool

__all__ = ["Pool"]
