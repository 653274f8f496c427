"""Hardware: signature, host probe, JetPack and installed runtime. Standard library only."""
