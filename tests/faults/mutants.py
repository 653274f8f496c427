"""The package with one thing wrong, as a copy of its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import REPO

MTIME_ONLY = (
    "files/digest_cache.py",
    "return [device, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, *more]",
    "return [0, 0, 0, stat.st_mtime_ns, stat.st_mtime_ns, *more]",
)
IN_PLACE = (
    "artifact/publish.py",
    "os.replace(engine, self._engine)",
    "self._engine.write_bytes(engine.read_bytes()); engine.unlink()",
)
SIDECAR_FIRST = (
    "artifact/publish.py",
    """            if self._in_place:
                engine.unlink(missing_ok=True)  # not the engine of the receipt, which is in place
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
    "build/build_engine.py",
    """    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
        context.stage("checking whether it is up to date")
        up_to_date = check_up_to_date(spec, context.state, context.digest_cache)
""",
    """    up_to_date = check_up_to_date(spec, context.state, context.digest_cache)
    with engine_lock(lock, what, waiting, context.stopping, context.lock_timeout_s):
""",
)
CONVERTS_BY_PATH = (
    "build/run_onnx_step.py",
    """    places, samples = snapshot(spec, inputs, state.top)
""",
    """    places, samples = snapshot(spec, inputs, state.top)
    places = {role: str(each.path) for role, each in spec.onnx.items()}
    samples = samples and {**samples, "path": str(spec.samples.path)}
""",
)
NO_LOOK_AT_STEPS = (
    "build/onnx_spec.py",
    "    receipt = next((r for r in receipts if r.sha256 == there), None)",
    "    receipt = receipts[0]",
)
SAMPLES_OF_NO_KEY = (
    "build/onnx_spec.py",
    """    if samples:
        base = samples.path""",
    """    if samples and not onnx:
        base = samples.path""",
)
PLUGINS_BY_NAME = (  # in three places, each of which alone would see the other plugin
    "build/engine_spec.py",
    """digest(path, f"plugin {path.name}")""",
    "path.name",
    "build/inputs_held_open.py",
    "        if digest != sha256 or now",
    "        if (digest != sha256 and not name.startswith('input plugin')) or now",
    "build/check_before_publish.py",
    "if _digest(digest_cache, path) != spec.ingredients[name]",
    """if "plugin" not in name and _digest(digest_cache, path) != spec.ingredients[name]""",
)
BELIEVES_A_STORE = (
    "cache/copy_and_hash.py",
    """    if digest != sha256:
        raise DigestMismatch(f"its sha256 is {digest[:12]}…")
    return True""",
    "    return True",
)
MUTANTS = {
    "a memo that looks at mtimes alone": MTIME_ONLY,
    "an engine written in place": IN_PLACE,
    "a conversion that reads its inputs by path": CONVERTS_BY_PATH,
    "a step whose bytes nobody looks at": NO_LOOK_AT_STEPS,
    "samples that are in no key": SAMPLES_OF_NO_KEY,
    "a plugin that is known by its name": PLUGINS_BY_NAME,
    "bytes of a store that are not hashed": BELIEVES_A_STORE,
    "a sidecar renamed before its engine": SIDECAR_FIRST,
    "no second look under the lock": NO_SECOND_LOOK,
}


def mutant(folder: Path, change: tuple[str, ...]) -> Path:
    """A copy of `site_scons` below `folder` with a text changed, or several. change: of each its file,
    the old text and the new one."""
    site = folder / "site_scons"
    shutil.copytree(REPO / "site_scons", site, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in zip(change[::3], change[1::3], change[2::3], strict=True):
        path = site / "scons_tensorrt" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} no longer has what the mutant changes"
        path.write_text(text.replace(old, new))
    return site
