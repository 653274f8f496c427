"""What runs in the compile's child process. Self-contained: it may be another interpreter.

Its modules are sent as text (see boot.py) and import only each other, the standard library
and the TensorRT that was asked for.
"""
