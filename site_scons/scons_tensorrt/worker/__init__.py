"""Code that runs in child processes, perhaps in another interpreter: Python 3.8 or later."""
