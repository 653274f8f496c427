"""The actions of this package: signed by a text that says how their targets are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from SCons.Action import FunctionAction


def _nothing(target: Any, source: Any, env: Any) -> None:
    pass


class PinnedAction(FunctionAction):  # type: ignore[misc]  # SCons has no types
    """Signed by `text`, never by Python bytecode: a new Python or a refactor must not compile a fleet
    again. So SCons walks through the code of none, which every run would pay for."""

    def __init__(self, function: Callable[..., None], describe: Callable[..., str], text: str) -> None:
        super().__init__(_nothing, {"strfunction": describe})
        self.execfunction = function
        self._text = text.encode()

    def get_presig(self, target: Any, source: Any, env: Any, executor: Any = None) -> bytes:
        return self._text
