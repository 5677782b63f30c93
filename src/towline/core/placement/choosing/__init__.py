"""Which of the nodes that would do is taken: rules, scores, and what is remembered of each shape."""
