"""Runs in the child process of a conversion, in the interpreter that has onnx and onnxruntime.

The modules are sent as text, like those of a compile. They import only each other, `worker.common`, the
standard library, numpy, onnx and onnxruntime.
"""
