"""How the worker's modules refuse: an error class of the parent by its name, and one line."""


class WorkerError(Exception):
    """error_class: a class of `scons_tensorrt.errors`; the text is what the user reads; lasting: no
    host would make it of the same inputs."""

    def __init__(self, error_class, message, lasting=False):
        super().__init__(message)
        self.error_class = error_class
        self.lasting = lasting
