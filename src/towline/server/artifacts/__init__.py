"""What elements of a cluster have written: kept in the object store, and given to whom it is an input."""
