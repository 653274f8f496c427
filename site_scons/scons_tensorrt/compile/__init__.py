"""MAKING an engine: is the one at hand right, and if not, a child process that compiles it."""
