"""The leader of a pool: its group-commit loop, and what it does about commands that break the pool."""

from towline.server.leader.loop import Audience, Leader
from towline.server.leader.poison import InHand, in_hand_path

__all__ = ["Audience", "InHand", "Leader", "in_hand_path"]
