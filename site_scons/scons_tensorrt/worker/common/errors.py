"""How the modules of a worker report an error to the parent."""

from __future__ import annotations


class WorkerError(Exception):
    """An error for the user to read.

    error_class: the name of a class in `scons_tensorrt.errors`; message: one line; lasting: whether the
    same inputs would fail on every host.
    """

    def __init__(self, error_class: str, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.lasting = lasting


def recipe_error(message: str) -> WorkerError:
    return WorkerError("RecipeError", message)


def accuracy_error(message: str) -> WorkerError:
    return WorkerError("AccuracyError", message)


def one_line(error: BaseException) -> str:
    """The message of an exception in one line of at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
