"""The node's GPUs: which it has, and what an attempt sees of those that it was given."""

from towline.agent.devices.finding import find_gpus
from towline.agent.devices.local import LocalGpu, LocalGpus

__all__ = ["LocalGpu", "LocalGpus", "find_gpus"]
