"""`python -m scons_tensorrt`."""

import sys

from .cli import main

sys.exit(main())
