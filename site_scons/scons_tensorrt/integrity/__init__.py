"""WHETHER an engine's bytes are whole. Standard library only."""
