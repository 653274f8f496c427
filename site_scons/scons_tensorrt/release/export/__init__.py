"""Engines in the formats of runtimes that others write: ONNX Runtime, Triton and DeepStream.

Each is a function of an engine, its receipt and the ONNX that it was compiled from: no time, path of a
machine or package version, so the same engines give the same bytes in every clone. The `onnx` package reads
the ONNX; it is imported when something is exported.
"""
