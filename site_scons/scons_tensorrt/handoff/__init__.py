"""AFTER the build: what is handed on, how a device checks it, and what may go. Standard library only,
unless a signature is asked for."""
