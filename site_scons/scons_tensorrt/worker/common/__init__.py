"""What workers of both kinds share: the start, the pipe to the parent, arrays in a file."""
