"""WHAT an engine is for: its filename, its hardware, its runtime. Standard library only."""
