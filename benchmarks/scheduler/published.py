"""What the authors of openb's experiment published (Weng et al., "Beware of Fragmentation", USENIX ATC
2023, the artifact): GPU allocation in % at an arrived demand of 100 and 130 %, means of ten seeds."""

from __future__ import annotations

POLICIES = ("Random", "DotProd", "Clustering", "Packing", "BestFit", "FGD")

Pair = tuple[float, float]

ALLOCATION: dict[str, tuple[Pair, ...]] = {
    "default": (
        (86.30, 87.47),
        (90.62, 90.85),
        (91.65, 91.88),
        (91.78, 92.00),
        (92.86, 93.08),
        (95.23, 95.39),
    ),
    "cpu050": (
        (89.02, 91.24),
        (93.03, 93.27),
        (93.52, 93.79),
        (93.46, 93.72),
        (93.56, 93.79),
        (95.00, 95.21),
    ),
    "cpu250": (
        (80.00, 80.42),
        (83.57, 83.81),
        (87.75, 87.99),
        (88.05, 88.28),
        (91.21, 91.45),
        (93.20, 93.41),
    ),
    "gpushare40": (
        (84.86, 86.00),
        (89.30, 89.56),
        (89.76, 90.02),
        (89.77, 90.03),
        (91.44, 91.69),
        (93.96, 94.15),
    ),
    "gpushare100": (
        (78.90, 79.44),
        (81.98, 82.42),
        (82.22, 82.65),
        (82.13, 82.57),
        (84.62, 85.01),
        (86.64, 86.90),
    ),
    "gpuspec10": (
        (86.26, 87.43),
        (90.17, 90.39),
        (91.96, 92.18),
        (92.24, 92.46),
        (93.10, 93.30),
        (94.66, 94.95),
    ),
    "gpuspec33": (
        (83.87, 86.46),
        (79.82, 89.14),
        (81.09, 92.12),
        (82.22, 93.22),
        (80.39, 93.09),
        (87.84, 94.55),
    ),
    "multigpu20": (
        (86.92, 88.69),
        (91.85, 92.06),
        (93.34, 93.56),
        (93.50, 93.71),
        (93.73, 93.93),
        (95.53, 95.65),
    ),
    "multigpu50": (
        (81.28, 90.27),
        (94.73, 94.85),
        (95.69, 95.81),
        (96.06, 96.18),
        (95.62, 95.74),
        (97.09, 97.18),
    ),
}
"""By trace, a pair for each of ``POLICIES``."""


def best(trace: str) -> Pair:
    """FGD's, the best of them on every trace."""
    return ALLOCATION[trace][-1]
