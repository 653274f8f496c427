"""The package with one thing wrong, as a copy of its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import REPO

MTIME_ONLY = (
    "integrity/memo.py",
    "return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]",
    "return [0, 0, 0, stat.st_mtime_ns, stat.st_mtime_ns]",
)
IN_PLACE = (
    "integrity/publish.py",
    "os.replace(engine, self._engine)",
    "self._engine.write_bytes(engine.read_bytes()); engine.unlink()",
)
SIDECAR_FIRST = (
    "integrity/publish.py",
    """            if self._in_place:
                engine.unlink(missing_ok=True)  # whatever it is, it is not what was vouched for
            else:
                os.replace(engine, self._engine)
            sync_folder(folder)
            os.replace(sidecar, sidecar_of(self._engine))
""",
    """            os.replace(sidecar, sidecar_of(self._engine))
            sync_folder(folder)
            if self._in_place:
                engine.unlink(missing_ok=True)
            else:
                os.replace(engine, self._engine)
""",
)
NO_SECOND_LOOK = (
    "compile/make.py",
    """    with engine_lock(lock, what, waiting, shop.stopping, shop.lock_timeout_s):
        verdict = judge(wanted, shop.state, shop.memo)
""",
    """    verdict = judge(wanted, shop.state, shop.memo)
    with engine_lock(lock, what, waiting, shop.stopping, shop.lock_timeout_s):
""",
)
MUTANTS = {
    "a memo that looks at mtimes alone": MTIME_ONLY,
    "an engine written in place": IN_PLACE,
    "a sidecar renamed before its engine": SIDECAR_FIRST,
    "no second look under the lock": NO_SECOND_LOOK,
}


def mutant(folder: Path, change: tuple[str, str, str]) -> Path:
    """A copy of `site_scons` below `folder` with a text changed."""
    site = folder / "site_scons"
    shutil.copytree(REPO / "site_scons", site, ignore=shutil.ignore_patterns("__pycache__"))
    name, old, new = change
    path = site / "scons_tensorrt" / name
    text = path.read_text()
    assert text.count(old) == 1, f"{name} no longer has what the mutant changes"
    path.write_text(text.replace(old, new))
    return site
