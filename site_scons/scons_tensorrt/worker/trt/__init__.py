"""The worker that compiles, and the one that runs an engine. Each is a child process, perhaps of another
interpreter.

The modules are sent as text (see boot.py). They import each other, the standard library and TensorRT.
"""
