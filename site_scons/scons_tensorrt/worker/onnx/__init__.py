"""What runs in the child process of a conversion, in the interpreter that has onnx and onnxruntime.

Its modules are sent as text, as those of a compile are, and import only each other, the standard
library, numpy, onnx and the converters.
"""
