"""Python code of the user's, always compiled from its source.

Python believes a `.pyc` file by the second of the source's mtime and by its size, so after a quick
edit, or one that kept the mtime, other code would run than was hashed.
"""

import importlib.machinery
import importlib.util
import os
import sys
import sysconfig

_INSTALLED = ("site-packages", "dist-packages")


class _FromSource(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes a `.pyc` file."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_from_source():
    """Let every import that is not of an installed package compile its source."""
    library = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    finder = importlib.machinery.FileFinder.path_hook(
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (_FromSource, importlib.machinery.SOURCE_SUFFIXES),
    )

    def hook(path):
        place = os.path.abspath(path)
        if any(part in _INSTALLED for part in place.split(os.sep)):
            raise ImportError(path)
        if any((place + os.sep).startswith(folder + os.sep) for folder in library if folder):
            raise ImportError(path)
        return finder(path)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def load(script, name):
    """The module of a script, under a name of its own. Raises whatever its code raises."""
    spec = importlib.util.spec_from_file_location(name, script, loader=_FromSource(name, script))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
