"""Several servers on one store: each takes any request, answers what is a fact, and passes on to the pool's
leader what is not."""
