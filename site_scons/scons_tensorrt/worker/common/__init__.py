"""Shared by both workers: the start of the process, the pipes to the parent, files of arrays."""
