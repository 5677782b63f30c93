"""Several servers, a store, nodes and clients in one process, in virtual time, with faults: a seed is a
history."""

from towline.simulation.faults.run import MODES, Verdict, simulate

__all__ = ["MODES", "Verdict", "simulate"]
