"""Which machine an engine is for: signature, probe, JetPack, the installed runtime. Standard library only."""
