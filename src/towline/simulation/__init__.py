"""A pool with simulated nodes, links, clients and faults in virtual time; every run replays from its seed."""

from towline.simulation.run import Verdict, simulate

__all__ = ["Verdict", "simulate"]
