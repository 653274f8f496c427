"""Python code of the user's: the declared files alone, always compiled from their source.

They lie as private copies below one folder, by their paths. A folder of the user's on `sys.path`
stands for its counterpart there, so nothing that is not declared is imported.

Python believes a `.pyc` file by the second of the source's mtime and by its size, so after a quick
edit, or one that kept the mtime, other code would run than was hashed.
"""

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig

from scons_tensorrt.compile.worker.failure import Refused

_INSTALLED = ("site-packages", "dist-packages")
_LIBRARY = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
_EXTENSIONS = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)


class _FromSource(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes a `.pyc` file."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


_OF_SOURCES = (_FromSource, importlib.machinery.SOURCE_SUFFIXES)
_ANY = (
    _EXTENSIONS,
    _OF_SOURCES,
    (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
)


class Code:
    """The declared code of one function. told: root (the folder of the copies), beside (where originals
    lie, by the folder of their copies), top (of the tree), option (which declares a file); None where
    the user's files are used in place. script: what a message calls the function's file."""

    def __init__(self, told, script):
        self.script = script
        self._told = told
        self._before = set(sys.modules)
        self._seen = len(sys.modules)
        self._undeclared = []

    def finder(self, place):
        """What finds modules in a folder of the user's."""
        if not self._told:
            return importlib.machinery.FileFinder.path_hook(_EXTENSIONS, _OF_SOURCES)(place)
        root = self._told["root"]
        copy = place if _is_below(place, root) else root + place
        originals = [copy[len(root) :] or os.sep]
        if copy in self._told["beside"]:
            originals.append(self._told["beside"][copy])
        return _Declared(copy, originals, self)

    def found_undeclared(self, path):
        """The text for a module that is not declared, which `check` will tell."""
        self._undeclared.append(path)
        return self._text(path)

    def check(self, error=None):
        """Refuse with RecipeError where a module was wanted, or loaded, that is not declared, or `error`
        is that of a file which is not."""
        if self._told and not self._undeclared and len(sys.modules) != self._seen:
            self._seen = len(sys.modules)
            self._undeclared += self._loaded()
        if self._undeclared:
            raise Refused("RecipeError", self._text(self._undeclared[0]))
        path = error.filename if self._told and isinstance(error, FileNotFoundError) else None
        if isinstance(path, str) and _is_below(path, self._told["root"]):
            original = path[len(self._told["root"]) :]
            if os.path.exists(original):
                raise Refused("RecipeError", self._text(original, "reads", "files="))

    def _loaded(self):
        """Files of the tree that something else than a path loaded as modules."""
        for name in sorted(set(sys.modules) - self._before):
            file = getattr(sys.modules[name], "__dict__", {}).get("__file__")
            if isinstance(file, str) and os.path.isabs(file) and not _is_installed(file):
                place = os.path.normpath(file)
                if _is_below(place, self._told["top"]) and not _is_below(place, self._told["root"]):
                    yield place

    def _text(self, path, verb="imports", option=None):
        top = self._told["top"]
        label = os.path.relpath(path, top) if _is_below(path, top) else path
        what = self.script, verb, label, option or self._told["option"]
        return "%s %s %s, which is not declared; add it to %s" % what


class _Declared(importlib.machinery.FileFinder):
    """Finds modules in a folder of copies. One that is only beside an original is not declared."""

    def __init__(self, copy, originals, code):
        super().__init__(copy, _EXTENSIONS, _OF_SOURCES)
        self._originals, self._code = originals, code

    def find_spec(self, fullname, target=None):
        spec = super().find_spec(fullname, target)
        if spec is not None and spec.loader is not None:
            return spec
        for folder in self._originals:
            other = importlib.machinery.FileFinder(folder, *_ANY).find_spec(fullname)
            if other is not None and other.loader is not None:
                raise ImportError(self._code.found_undeclared(other.origin), name=fullname)
        return spec


def _is_below(path, folder):
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_installed(place):
    if any(part in _INSTALLED for part in place.split(os.sep)):
        return True
    return any(_is_below(place, folder) for folder in _LIBRARY)


def import_from_source(script, told):
    """Let every import that is not of an installed package compile the source of a declared file; what
    `Code` knows of them. told: as `Code` has it."""
    code = Code(told, os.path.basename(script))

    def hook(path):
        place = os.path.abspath(path)
        if _is_installed(place) or os.path.isfile(place):
            raise ImportError(path)
        return code.finder(place)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()
    return code


def load(script, name):
    """The module of a script, under a name of its own. Raises whatever its code raises."""
    spec = importlib.util.spec_from_file_location(name, script, loader=_FromSource(name, script))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
