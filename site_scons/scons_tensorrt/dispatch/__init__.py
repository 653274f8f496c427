"""Engines for hardware that this host cannot compile for: sent to a machine that has it.

Dask's `distributed` finds the machine, retries and reports; it carries a digest and words, no bytes.
Models go to, and engines come from, the store, where each is believed for its own reasons: bytes by
their sha256, an engine's entry by the signature of the machine that made it.
"""
