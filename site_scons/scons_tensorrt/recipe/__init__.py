"""How an engine is to be made: options, shapes, precision, the ONNX, and the cache key of all these."""
