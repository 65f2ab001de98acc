"""Other controllers that route: each in a Python environment of its own, on the same chain as fsctl."""
