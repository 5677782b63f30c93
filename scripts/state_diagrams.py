"""Draw the state diagrams of docs/ARCHITECTURE.md: `python scripts/state_diagrams.py`."""

from __future__ import annotations

import re
from pathlib import Path

from towline.core import lifecycle

PAGE = Path(__file__).parent.parent / "docs" / "ARCHITECTURE.md"
TABLES = {
    "element": (lifecycle.ELEMENT, "waiting"),
    "attempt": (lifecycle.ATTEMPT, "assigned"),
    "job": (lifecycle.JOB, "running"),
}


def drawn(page: str) -> str:
    """The page with each diagram behind its mark drawn anew."""
    for name, (table, start) in TABLES.items():
        mark = f"<!-- {name} -->"
        diagram = f"{mark}\n```mermaid\n{lifecycle.diagram(table, start)}\n```"
        pattern = re.escape(mark) + r"(\n```mermaid\n.*?\n```)?"
        page = re.sub(pattern, lambda _, text=diagram: text, page, count=1, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text()))
