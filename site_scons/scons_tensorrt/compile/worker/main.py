"""One compile, from the job to the `done` event; whatever goes wrong is an `error` event."""

import ctypes
import importlib
import os
import platform
import resource
import sys
import traceback

from scons_tensorrt.compile.worker import link
from scons_tensorrt.compile.worker.build import build, configure
from scons_tensorrt.compile.worker.failure import Refused
from scons_tensorrt.compile.worker.network import check_precision, parse
from scons_tensorrt.compile.worker.observe import make_logger

PRODUCTS = ("tensorrt_rtx",)


def main(job):
    """Run a job: see `compile/make.py` for its fields. Ends the process."""
    link.claim_stdout()
    link.die_with_parent()
    try:
        sha256, size, version = _compile(job)
    except Refused as refused:
        link.send("error", error_class=refused.error_class, message=str(refused))
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        message = "%s: %s" % (type(error).__name__, error)
        link.send("error", error_class="EngineBuildError", message=message)
        os._exit(1)
    link.send(
        "done",
        sha256=sha256,
        size=size,
        version=version,
        python=platform.python_version(),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        not_reproducible_because=job["not_canonical_because"] or None,
    )
    os._exit(0)  # an engine on disk needs no destructors


def _compile(job):
    trt = _load(job)
    for path in job["plugins"]:
        _load_plugin(trt, path)
    os.chdir(job["folder"])
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError:
        reason = logger.errors[0] if logger.errors else "no GPU?"
        raise Refused("SignatureError", "%s cannot build here: %s" % (trt.__name__, reason)) from None
    network, parser = parse(trt, builder, logger, job["onnx"])
    check_precision(network, job["recipe"]["precision"])
    config = configure(trt, builder, network, job)
    sha256, size = build(trt, builder, network, config, logger, job["output"])
    del parser
    return sha256, size, trt.__version__


def _load(job):
    if job["product"] not in PRODUCTS:
        raise Refused(
            "SignatureError",
            "this version compiles with %s only, not with %s" % (", ".join(PRODUCTS), job["product"]),
        )
    for field, found in (("os", platform.system().lower()), ("machine", platform.machine())):
        if job["hardware"][field] != found:
            wanted = job["hardware"][field]
            raise Refused("SignatureError", "%s: wanted %s, found %s" % (field, wanted, found))
    if job["package_folder"] not in sys.path:
        sys.path.append(job["package_folder"])
    try:
        trt = importlib.import_module(job["product"])
    except (ImportError, OSError) as error:
        _once_more_with_library_path(job, error)
        raise Refused(
            "HardwareError", "%s cannot be imported by %s: %s" % (job["product"], sys.executable, error)
        ) from None
    wanted = job["runtime_version"]
    if not (trt.__version__ + ".").startswith(wanted + "."):
        raise Refused(
            "SignatureError",
            "runtime_version: wanted %s, found %s; install that version or name other hardware"
            % (wanted, trt.__version__),
        )
    return trt


def _once_more_with_library_path(job, error):
    """Some installations need LD_LIBRARY_PATH, which the canonical form leaves out."""
    extra = job.get("library_path")
    if extra and "LD_LIBRARY_PATH" not in os.environ:
        link.send("again", library_path=extra, because=str(error))
        os._exit(4)


def _load_plugin(trt, path):
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise Refused("RecipeError", "plugin %s: %s" % (os.path.basename(path), error)) from None
