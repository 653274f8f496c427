"""`python -m scons_tensorrt`."""

from .cli import run

run()
