"""Python code of the user's: the declared files alone, always compiled from their source.

They lie as private copies below one folder, by their paths. A folder of the user's on `sys.path`
stands for its counterpart there, so nothing that is not declared is imported.

Python believes a `.pyc` file by the second of the source's mtime and by its size, so after a quick
edit, or one that kept the mtime, other code would run than was hashed.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import sysconfig
import tempfile

from scons_tensorrt.worker.common.errors import WorkerError

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
    """The declared code of one function. told: root (the folder of the copies), beside (where else
    originals lie, by the folder of their copies), top (of the tree), option (which declares a file);
    None where the user's files are used in place. script: the function's file."""

    def __init__(self, told, script):
        self.script = os.path.basename(script)
        self._folder = os.path.dirname(os.path.abspath(script))
        self._told = told
        self._undeclared = []
        if told:
            sys.path[:] = [place and self.copy_of(place) for place in sys.path]
            # Code that libraries generate and run lies there.
            self._written = [os.path.dirname(os.path.dirname(told["root"]))]
            temporary = os.path.abspath(tempfile.gettempdir())
            if not _is_below(told["top"], temporary):
                self._written.append(temporary)
            sys.addaudithook(self._refuse_undeclared)

    def finder(self, place):
        """What finds modules in a folder of the user's."""
        if not self._told:
            return importlib.machinery.FileFinder.path_hook(_EXTENSIONS, _OF_SOURCES)(place)
        copy = self.copy_of(place)
        originals = [copy[len(self._told["root"]) :] or os.sep]
        return _Declared(copy, originals + self._told["beside"].get(copy, []), self)

    def copy_of(self, folder):
        """The folder of the copies of what lies in `folder`, itself where it is one; an installed one
        stays as it is."""
        place, root = os.path.abspath(folder), self._told["root"]
        if _is_below(place, root) or _is_installed(place) or os.path.isfile(place):
            return place
        return root + place

    def hidden(self):
        """The text for the script, or a file beside it, that has the name of an installed module; empty
        where there is none."""
        if not self._told:
            return ""
        names = {name.partition(".")[0] for name in os.listdir(self._folder)}
        installed = [place for place in sys.path if _is_installed(os.path.abspath(place))]
        for name in sorted(names):
            found = name in sys.builtin_module_names
            if found or importlib.machinery.PathFinder.find_spec(name, installed):
                return "; an installed module is called `%s`, as yours is: rename yours" % name
        return ""

    def found_undeclared(self, path):
        """The text for a module that is not declared, which `check` will tell."""
        self._undeclared.append(path)
        return self._text(path)

    def check(self, error=None):
        """Refuse with RecipeError where a module was wanted, or run, that is not declared, or `error` is
        that of a file which is not."""
        if self._told and isinstance(error, ModuleNotFoundError) and error.name:
            with contextlib.suppress(ImportError):  # of a child process, which has the copies alone
                importlib.util.find_spec(error.name.partition(".")[0])
        if self._undeclared:
            raise WorkerError("RecipeError", self._text(self._undeclared[0]))
        path = error.filename if self._told and isinstance(error, FileNotFoundError) else None
        if isinstance(path, str) and _is_below(path, self._told["root"]):
            original = path[len(self._told["root"]) :]
            if os.path.exists(original):
                raise WorkerError("RecipeError", self._text(original, "reads", "files="))

    def _refuse_undeclared(self, event, arguments):
        """An audit hook: raise ImportError where a file of the tree is run by its path, by whatever
        means."""
        if event == "exec":
            path = getattr(arguments[0], "co_filename", None)
        elif event == "import":
            path = arguments[1]  # of an extension module
        else:
            return
        if not isinstance(path, str) or not (os.path.isabs(path) or os.path.isfile(path)):
            return  # a text, as dataclasses run it
        place = os.path.abspath(path)
        if not _is_below(place, self._told["top"]) or _is_installed(place):
            return
        if any(_is_below(place, folder) for folder in self._written):
            return
        while not os.path.exists(place):  # in a zip file
            place = os.path.dirname(place)
        raise ImportError(self.found_undeclared(place))

    def _text(self, path, verb="imports", option=None):
        top = self._told["top"]
        label = os.path.relpath(path, top) if _is_below(path, top) else path
        if os.path.isfile(self._told["root"] + path):
            return "%s runs %s itself, not its private copy; find it by __file__" % (self.script, label)
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
            copy = self._code.copy_of(folder)
            declared = importlib.machinery.FileFinder(copy, _EXTENSIONS, _OF_SOURCES).find_spec(fullname)
            if declared is not None and declared.loader is not None:
                return declared
            other = importlib.machinery.FileFinder(folder, *_ANY).find_spec(fullname)
            if other is not None and other.loader is not None:
                raise ImportError(self._code.found_undeclared(other.origin), name=fullname)
            if other is not None and spec is None:  # a folder, whose modules will be told
                spec = other
                places = [self._code.copy_of(place) for place in other.submodule_search_locations]
                spec.submodule_search_locations = places
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
    code = Code(told, script)

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
