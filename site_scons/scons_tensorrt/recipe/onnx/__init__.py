"""Reading an ONNX file by its wire format, without the onnx package."""
