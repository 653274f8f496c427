"""What the targets of this plugin have in common: engines, ONNX files, manifests, installed files."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import SCons.Errors
import SCons.Node
from SCons.Action import FunctionAction

from ..build.up_to_date import UpToDateResult
from ..errors import EngineError, Interrupted
from ..recipe.option_checks import Place
from .call_errors import place_of_call
from .nodes import OwnExecutor, OwnFile, set_class, target_of
from .run_files import RunFiles
from .settings import option

if TYPE_CHECKING:  # a null build would pay for each Protocol, and for ABCMeta at each isinstance()
    from abc import ABC
    from typing import Protocol

    class Prepared(Protocol):
        """The prepare step of an ONNX, see prepared_target.py. always: whether it is needed for any ONNX;
        apart: the part of its filename that differs from that of the model's other prepared files."""

        always: bool

        @property
        def target(self) -> Any: ...

        @property
        def apart(self) -> str: ...

        def is_needed(self, read: bool = True) -> bool:
            """Whether TensorRT would refuse the ONNX as it is now. read: see `OnnxTarget.is_needed`."""

        def instead_of(self, node: Any, read: bool = True) -> Any:
            """The node to use for that of an ONNX."""

    class Beside(Protocol):
        """Files beside a manifest, such as bom_target.py. names: of the files; nodes: of the same."""

        names: tuple[str, ...]
        nodes: Any

        def data(self, name: str) -> bytes:
            """The contents of one file, which is up to date or would be written. Raises EngineError."""

else:
    ABC = object

NEVER = -1  # a number of dependencies that no node has


class Target(ABC):
    """One or more files that this plugin makes.

    path: of the first; nodes: of all; depends: explicit dependencies of each node, as declared here;
    place: where it is declared; problem: why it cannot be made; reported: whether its line was printed.
    """

    nodes: Any = ()
    depends = NEVER
    place: Place | None = None
    problem: EngineError | None = None
    reported = False
    _visited: frozenset[Any] = frozenset()

    def __init__(self, files: RunFiles, path: Path) -> None:
        self._files = files
        self.path = path
        self.label = files.state.relative(path)

    def connect(self, nodes: Any, dependencies: Sequence[Any], kind: type[OwnFile] = OwnFile) -> None:
        """Make `nodes`, which a builder has returned, the files of this target. kind: the class of the
        first. SCons keeps the old files until the new ones are complete."""
        plain = not any(node.depends for node in nodes)  # an emitter of the user may have added some
        self.nodes, self.place = nodes, place_of_call(nodes[0].fs)
        for node in nodes:
            node.attributes.trt_target = self
            set_class(node, kind if node is nodes[0] else OwnFile)
            node.add_dependency(dependencies)
            node.set_precious(True)
            node.set_nocache(True)
        nodes[0].executor.__class__ = OwnExecutor
        if plain:
            self.depends = len(nodes[0].depends)

    @property
    def path_id(self) -> str:
        """In the names of its temporary files."""
        return self._files.state.path_id(self.path)

    def place_of(self, error: Exception) -> str:
        """FILE:LINE of what the user wrote that this error of the target is about; "" for an engine of the
        command line."""
        place = self.place
        return place.at(self.option_of(error)) if place and place.line else ""

    def option_of(self, error: Exception) -> str | None:
        """The option that an error is about, if it is one."""
        return None

    def on_visit(self, node: Any) -> bool:
        """SCons visits each node once a build. Returns whether this visit is the second, so that another
        build of an interactive session has begun."""
        again = node in self._visited
        if again:
            self._visited = frozenset()
            self.reset()
        self._visited |= {node}
        return again

    def fails(self) -> bool:
        """Whether its action would report that it cannot be made, according to its inputs."""
        return False

    @abstractmethod
    def reset(self) -> None:
        """Forget what the last build of an interactive session found."""

    @abstractmethod
    def is_right(self, node: Any) -> bool:
        """Whether a file needs no action, according to its bytes."""


class ReceiptTarget(Target):
    """A target with a key and a receipt: an engine, or an ONNX made for it.

    name: of the model; owners: the engines that need it; began: start of its action, seconds since the
    epoch; in_store: size in bytes of a file that was found in the shared cache and not downloaded, else None.
    """

    name: str
    owners: list[Any]
    in_store: int | None = None
    began: float | None = None
    judged_s = 0.0
    checked: UpToDateResult | None = None  # the result of `up_to_date`, if it was called

    @property
    @abstractmethod
    def sha256(self) -> str | None:
        """Of the file's bytes, if they were checked or made."""

    @property
    def target(self) -> Any:
        """The node of its first file."""
        return self.nodes[0]

    def size(self) -> int:
        """The size of the file, in bytes, whether it is here or in the shared cache. Raises OSError."""
        return os.lstat(self.path).st_size if self.in_store is None else self.in_store

    def reset(self) -> None:
        self.checked, self.reported, self.began, self.in_store = None, False, None, None

    def up_to_date(self) -> UpToDateResult:
        """Whether the target is up to date, before anything is made; cached. Raises EngineError."""
        if self.checked is None:
            began = time.monotonic()
            self.checked = self._check_up_to_date()
            self.judged_s = time.monotonic() - began
            if self._files.on_check:
                self._files.on_check(self, began)
        return self.checked

    @abstractmethod
    def _check_up_to_date(self) -> UpToDateResult: ...

    def forget(self) -> None:
        """Check again on the next call of `up_to_date`."""
        self.checked = None

    def is_complete(self) -> bool:
        """Whether it is up to date, so that its action would do nothing. Raises EngineError."""
        return self.up_to_date().current

    def is_right(self, node: Any) -> bool:
        try:
            return self.is_complete()
        except EngineError:
            return False

    @abstractmethod
    def sources(self) -> list[Any]:
        """The sources of its builder."""

    @abstractmethod
    def needs(self) -> list[Any]:
        """The nodes of all input files that are known."""

    @abstractmethod
    def tidy(self) -> None:
        """Remove what a killed build left."""

    def fails(self) -> bool:
        """Whether its action would report that it cannot be made."""
        if self.problem:
            return True
        try:
            self.up_to_date()
        except Exception:  # one of our own, too
            return True
        return False

    def awaits(self) -> str | None:
        """The label of an input that this run built (with -n: would build), if any. Without a .sconsign
        SCons runs the action of each step; those of up-to-date steps do nothing."""
        for node in self.target.children():
            if node.has_builder() and node.get_state() == SCons.Node.executed:
                made = target_of(node)
                checked = getattr(made, "checked", None)
                if not (checked and checked.current) and not getattr(made, "unchanged", False):
                    return self._files.state.relative(node.get_abspath())
        return None


def steps_of(nodes: Iterable[Any]) -> list[Any]:
    """The targets of ONNX files (OnnxTarget) that `nodes` are or are made from, each after its inputs."""
    found: dict[Any, None] = {}

    def add(node: Any) -> None:
        step = target_of(node)
        if hasattr(step, "receipt_details") and step not in found:
            for onnx in step.onnx.values():
                add(onnx)
            found[step] = None

    for node in nodes:
        add(node)
    return list(found)


class HandoffTarget(Target):
    """A manifest or installed files. They are a function of the engines of this run, so they need no
    receipt: a file is right when its bytes are those that would be written now. opens: whether the action
    reads the bytes of its sources, not only what is known of them."""

    opens = True

    def reset(self) -> None:
        self.problem = None

    @abstractmethod
    def write(self) -> Iterator[str]:
        """The action: yields what to print. Raises EngineError or OSError."""

    @abstractmethod
    def preview(self) -> str | None:
        """What to print under -n. Raises EngineError or OSError."""


def _nothing(target: Any, source: Any, env: Any) -> None:
    pass


class PinnedAction(FunctionAction):  # type: ignore[misc]  # SCons has no types
    """SCons signs an action by its bytecode; a new Python or a refactoring would rebuild every engine.
    This one is signed by `text`. `_nothing` also spares SCons the analysis of the real function.

    preview: called instead under -n; comstr: what SCons prints before it.
    """

    def __init__(
        self,
        function: Callable[[Any, Any, Any], None],
        text: str,
        preview: Callable[[Any, Any, Any], None],
        comstr: str = "",
    ) -> None:
        super().__init__(_nothing, {})
        self.execfunction = function
        self._text = text.encode()
        self._preview, self._comstr = preview, comstr

    def get_presig(self, target: Any, source: Any, env: Any, executor: Any = None) -> bytes:
        return self._text

    def strfunction(self, target: Any, source: Any, env: Any, executor: Any = None) -> str:
        if not option("no_exec"):
            return str(env.subst(self._comstr, target=target, source=source))
        self._preview(target, source, env)
        return ""


def fail_action(nodes: Any, error: EngineError) -> NoReturn:
    """Fail an action whose error is reported already. Raises BuildError."""
    why = "interrupted" if isinstance(error, Interrupted) else "failed"
    raise SCons.Errors.BuildError(node=nodes, errstr=why, status=2, exitstatus=2) from None
