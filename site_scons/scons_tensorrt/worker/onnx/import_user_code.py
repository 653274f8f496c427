"""Imports the user's Python code: declared files only, always compiled from their source.

Private copies of the declared files lie below one folder, under their original paths. A folder of the user's
on `sys.path` is replaced by its counterpart there, so nothing that is not declared is imported.

No .pyc file is used: Python checks one by its source's size and mtime in seconds, so after a quick edit, or
one that kept the mtime, other code would run than was hashed.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any

from scons_tensorrt.worker.common.errors import recipe_error

_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]


class _FromSource(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes a .pyc file."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


_EXTENSIONS = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
_SOURCES = (_FromSource, importlib.machinery.SOURCE_SUFFIXES)
_ANY = (
    _EXTENSIONS,
    _SOURCES,
    (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
)


class Code:
    """The declared code of one function.

    copies: root (the folder of the copies), beside ({folder of copies: other folders of their originals}),
    top (of the tree), option (that declares a file); None if the user's files are used in place. script:
    the function's file.
    """

    def __init__(self, copies: Mapping[str, Any] | None, script: str) -> None:
        self.script = os.path.basename(script)
        self._folder = os.path.dirname(os.path.abspath(script))
        self._copies = copies
        self._undeclared: list[str] = []
        if copies:
            sys.path[:] = [place and self.copy_of(place) for place in sys.path]
            # Libraries generate code there and run it.
            self._generated = [os.path.dirname(os.path.dirname(copies["root"]))]
            temporary = os.path.abspath(tempfile.gettempdir())
            if not _is_below(copies["top"], temporary):
                self._generated.append(temporary)
            sys.addaudithook(self._refuse_undeclared)

    def finder(self, place: str) -> importlib.machinery.FileFinder:
        """The finder of modules in a folder of the user's."""
        if not self._copies:
            return importlib.machinery.FileFinder(place, _EXTENSIONS, _SOURCES)
        copy = self.copy_of(place)
        originals = [copy[len(self._copies["root"]) :] or os.sep]
        return _DeclaredFinder(copy, originals + self._copies["beside"].get(copy, []), self)

    def copy_of(self, folder: str) -> str:
        """The folder of the copies of a folder's files; the folder itself if it is one, or is installed."""
        assert self._copies
        place, root = os.path.abspath(folder), str(self._copies["root"])
        if _is_below(place, root) or _is_installed(place) or os.path.isfile(place):
            return place
        return root + place

    def hides_installed(self) -> str:
        """The end of a message if the script, or a file beside it, has the name of an installed module;
        else ''."""
        if not self._copies:
            return ""
        names = {name.partition(".")[0] for name in os.listdir(self._folder)}
        installed = [place for place in sys.path if _is_installed(os.path.abspath(place))]
        for name in sorted(names):
            found = name in sys.builtin_module_names
            if found or importlib.machinery.PathFinder.find_spec(name, installed):
                return "; an installed module is called `%s`, as yours is: rename yours" % name
        return ""

    def add_undeclared(self, path: str) -> str:
        """Have `check` report a module that is not declared; return the message."""
        self._undeclared.append(path)
        return self._message(path)

    def check(self, error: BaseException | None = None) -> None:
        """Raise WorkerError (RecipeError) if the code imported or ran a file that is not declared, or `error`
        says that it did not find one."""
        if not self._copies:
            return
        if isinstance(error, ModuleNotFoundError) and error.name:
            with contextlib.suppress(ImportError):  # of a child process, which has only the copies
                importlib.util.find_spec(error.name.partition(".")[0])
        if self._undeclared:
            raise recipe_error(self._message(self._undeclared[0]))
        path = error.filename if isinstance(error, FileNotFoundError) else None
        if isinstance(path, str) and _is_below(path, self._copies["root"]):
            original = path[len(self._copies["root"]) :]
            if os.path.exists(original):
                raise recipe_error(self._message(original, "reads", "files="))

    def _refuse_undeclared(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: raises ImportError if a file of the tree is run by its path, by whatever means."""
        if event == "exec":
            path = getattr(arguments[0], "co_filename", None)
        elif event == "import":
            path = arguments[1]  # of an extension module
        else:
            return
        if not isinstance(path, str) or not (os.path.isabs(path) or os.path.isfile(path)):
            return  # text, as dataclasses run it
        assert self._copies
        place = os.path.abspath(path)
        if not _is_below(place, self._copies["top"]) or _is_installed(place):
            return
        if any(_is_below(place, folder) for folder in self._generated):
            return
        while not os.path.exists(place):  # in a zip file
            place = os.path.dirname(place)
        raise ImportError(self.add_undeclared(place))

    def _message(self, path: str, verb: str = "imports", option: str | None = None) -> str:
        assert self._copies
        top = self._copies["top"]
        label = os.path.relpath(path, top) if _is_below(path, top) else path
        if os.path.isfile(self._copies["root"] + path):
            return "%s runs %s itself, not its private copy; find it by __file__" % (self.script, label)
        what = self.script, verb, label, option or self._copies["option"]
        return "%s %s %s, which is not declared; add it to %s" % what


class _DeclaredFinder(importlib.machinery.FileFinder):
    """Finds modules in a folder of copies. A module that is only beside an original is not declared."""

    def __init__(self, copy: str, originals: Sequence[str], code: Code) -> None:
        super().__init__(copy, _EXTENSIONS, _SOURCES)
        self._originals, self._code = originals, code

    def find_spec(
        self, fullname: str, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = super().find_spec(fullname, target)
        if spec is not None and spec.loader is not None:
            return spec
        for folder in self._originals:
            copy = self._code.copy_of(folder)
            declared = importlib.machinery.FileFinder(copy, _EXTENSIONS, _SOURCES).find_spec(fullname)
            if declared is not None and declared.loader is not None:
                return declared
            other = importlib.machinery.FileFinder(folder, *_ANY).find_spec(fullname)
            if other is not None and other.loader is not None:
                raise ImportError(self._code.add_undeclared(str(other.origin)), name=fullname)
            if other is not None and spec is None:  # a folder, whose modules are looked up in turn
                spec = other
                places = [self._code.copy_of(place) for place in other.submodule_search_locations or ()]
                spec.submodule_search_locations = places
        return spec


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_installed(place: str) -> bool:
    if any(part in _INSTALLED for part in place.split(os.sep)):
        return True
    return any(_is_below(place, folder) for folder in _LIBRARY)


def import_from_source(script: str, copies: Mapping[str, Any] | None) -> Code:
    """From now on, compile every imported module that is not installed from the source of a declared file.
    script, copies: as `Code` takes them."""
    code = Code(copies, script)

    def hook(path: str) -> importlib.machinery.FileFinder:
        place = os.path.abspath(path)
        if _is_installed(place) or os.path.isfile(place):
            raise ImportError(path)
        return code.finder(place)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()
    return code


def load(script: str, name: str) -> ModuleType:
    """The module of a script, named `name`. Raises whatever its code raises."""
    loader = _FromSource(name, script)
    spec = importlib.util.spec_from_file_location(name, script, loader=loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module
