"""The schema's revisions, oldest first, each a file in ``versions``.

They are named here so that opening a database that is up to date needs no Alembic, whose import
takes longer than everything else that opening does.
"""

from __future__ import annotations

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011")
HEAD = REVISIONS[-1]
