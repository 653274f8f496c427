"""`python -m scons_tensorrt`; the commands are listed in cli/__init__.py."""

from .cli import run

run()
