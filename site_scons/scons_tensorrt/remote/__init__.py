"""Compiles on other machines, for hardware that this host cannot compile for."""
