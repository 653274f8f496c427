"""Remote compiles, for hardware that this host cannot compile for."""
