"""The ONNX before its compile: another precision, quantization, and how accurate that is."""
