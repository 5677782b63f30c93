"""Records of what clusters were really asked for, read as data: what a simulation replays."""
