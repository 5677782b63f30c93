"""How to pack a pool: one file a policy. ``headroom`` is Towline's own, the others are for comparison."""
