"""Several pools in one server: what it has for each of them, which one a request is about, and how what is
asked of all of them is put together."""
