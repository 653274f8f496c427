"""One build without SCons: is an engine up to date, and if not, the child process that compiles it."""
