"""HOW an engine is to be made: its options, its shapes, its model, and the key of all these."""
