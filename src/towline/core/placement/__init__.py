"""Where elements go: nodes as columns, filters that say why not, scores that say where best."""
