"""Actions whose signature is a fixed text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from SCons.Action import FunctionAction


def _nothing(target: Any, source: Any, env: Any) -> None:
    pass


class PinnedAction(FunctionAction):  # type: ignore[misc]  # SCons has no types
    """SCons signs an action by its bytecode; a new Python or a refactoring would rebuild every engine.
    This one is signed by `text`. `_nothing` also spares SCons the analysis of the real function."""

    def __init__(self, function: Callable[..., None], describe: Callable[..., str], text: str) -> None:
        super().__init__(_nothing, {"strfunction": describe})
        self.execfunction = function
        self._text = text.encode()

    def get_presig(self, target: Any, source: Any, env: Any, executor: Any = None) -> bytes:
        return self._text
