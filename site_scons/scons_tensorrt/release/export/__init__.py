"""Exports of engines to other inference runtimes: ONNX Runtime, Triton and DeepStream.

An export depends only on the engine, its receipt and the ONNX that it was compiled from, so the same engines
give the same bytes in every clone. The `onnx` package reads the ONNX; it is imported when something is
exported. To add one: a module here, and a subcommand in `cli/export.py`.
"""
