"""`python -m scons_tensorrt`. To add a command, write its module in cli/ and list it in cli/__init__.py."""

from .cli import run

run()
