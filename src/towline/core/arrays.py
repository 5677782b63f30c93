"""Sets of array indexes as sorted ranges: what has ended, what is ready, what left early.

A million elements that end in order are one range; the cost grows with the number of ranges only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""(first, last), both included."""


class IndexSet:
    """A set of integers, kept as disjoint ranges that do not touch.

    ``add`` and ``remove`` cost O(log n) to find the place and O(n) to move what is behind it,
    n being the number of ranges; adding at the end, the usual case, is O(1).
    """

    __slots__ = ("_count", "_his", "_los")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._los: list[int] = []
        self._his: list[int] = []
        self._count = 0
        for lo, hi in ranges:
            self.add(lo, hi)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        at = bisect_right(self._los, index) - 1
        return at >= 0 and index <= self._his[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexSet):
            return NotImplemented
        return self._los == other._los and self._his == other._his

    __hash__ = None  # type: ignore[assignment]  # mutable, like set

    def __repr__(self) -> str:
        inside = ",".join(f"{lo}-{hi}" if lo < hi else str(lo) for lo, hi in self.ranges())
        return f"IndexSet({inside})"

    def ranges(self) -> Iterator[Range]:
        return zip(self._los, self._his, strict=True)

    def copy(self) -> IndexSet:
        other = IndexSet()
        other._los, other._his, other._count = self._los.copy(), self._his.copy(), self._count
        return other

    def first(self) -> int:
        """The lowest index. Raises IndexError where there is none."""
        return self._los[0]

    def add(self, lo: int, hi: int) -> None:
        """Add ``lo`` to ``hi``; what is in already stays in."""
        his = self._his
        if his and lo == his[-1] + 1:
            his[-1] = hi
            self._count += hi - lo + 1
            return
        if not his or lo > his[-1]:
            self._los.append(lo)
            his.append(hi)
            self._count += hi - lo + 1
            return
        left = bisect_left(his, lo - 1)
        right = bisect_right(self._los, hi + 1)
        if left < right:
            covered = sum(his[at] - self._los[at] + 1 for at in range(left, right))
            lo, hi = min(lo, self._los[left]), max(hi, his[right - 1])
            self._count -= covered
        self._los[left:right] = [lo]
        self._his[left:right] = [hi]
        self._count += hi - lo + 1

    def remove(self, lo: int, hi: int) -> None:
        """Take ``lo`` to ``hi`` away; what is not in is no error."""
        left = bisect_left(self._his, lo)
        right = bisect_right(self._los, hi)
        if left >= right:
            return
        kept: list[Range] = []
        if self._los[left] < lo:
            kept.append((self._los[left], lo - 1))
        if self._his[right - 1] > hi:
            kept.append((hi + 1, self._his[right - 1]))
        covered = sum(self._his[at] - self._los[at] + 1 for at in range(left, right))
        self._count += sum(b - a + 1 for a, b in kept) - covered
        self._los[left:right] = [a for a, _ in kept]
        self._his[left:right] = [b for _, b in kept]

    def within(self, lo: int, hi: int) -> list[Range]:
        """The ranges of this set that lie in ``lo`` to ``hi``, cut to it."""
        left = bisect_left(self._his, lo)
        right = bisect_right(self._los, hi)
        return [(max(self._los[at], lo), min(self._his[at], hi)) for at in range(left, right)]

    def missing(self, lo: int, hi: int) -> list[Range]:
        """The ranges of ``lo`` to ``hi`` that are not in this set."""
        gaps: list[Range] = []
        at = lo
        for a, b in self.within(lo, hi):
            if at < a:
                gaps.append((at, a - 1))
            at = b + 1
        if at <= hi:
            gaps.append((at, hi))
        return gaps

    def take(self, most: int) -> list[Range]:
        """Remove and return the ``most`` lowest indexes, as ranges."""
        taken: list[Range] = []
        while most > 0 and self._los:
            lo, hi = self._los[0], self._his[0]
            last = min(hi, lo + most - 1)
            taken.append((lo, last))
            most -= last - lo + 1
            self.remove(lo, last)
        return taken
