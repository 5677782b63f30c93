"""``tow dev``: a whole cluster on one machine, a network for it, and the end of all that."""
