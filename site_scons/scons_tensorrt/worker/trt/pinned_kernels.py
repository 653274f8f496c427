"""`timing_cache=`: use the recorded kernel of each layer, or record which kernels TensorRT chooses.

An editable timing cache has an entry for each layer of the network, with the hash of the layer's tactic
(TensorRT's sampleEditableTimingCache). With ERROR_ON_TIMING_CACHE_MISS the builder fails at a layer that has
none, instead of timing it. TensorRT's log names layers and keys; an API for that does not exist.

TensorRT makes an empty cache of bytes that it cannot read, and only logs a warning, so the entries are read
back and compared with those of the file.
"""

from __future__ import annotations

import re

from scons_tensorrt.worker.common import parent
from scons_tensorrt.worker.common.errors import WorkerError, recipe_error
from scons_tensorrt.worker.trt.runtime import title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from scons_tensorrt.worker.trt.job import PinnedKernels

_LAYER = re.compile(r"Autotuning op (.+?)\(key: (0x[0-9A-Fa-f]+)\)")
_MISS = re.compile("errorOnMiss|timing cache miss|not (?:found )?in (?:the )?timing cache", re.IGNORECASE)
_NO_TACTIC = (1 << 64) - 1  # the hash in the invalid value of `ITimingCache.query`
PIECE = 2000  # kernels of one event
# Compiled code would make the file large; the engine has it in any case.
FLAGS = ("EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE")


class Kernels:
    """The timing cache of one build. Raises WorkerError where TensorRT does not accept it."""

    def __init__(self, trt: Any, config: Any, logger: Any, job: PinnedKernels) -> None:
        self._trt, self._config, self._job = trt, config, job
        self._layers: list[tuple[str, str]] = []  # name and key, in the order of the log
        logger.listeners.append(self._hear)
        for name in FLAGS if job.record else (*FLAGS, "ERROR_ON_TIMING_CACHE_MISS"):
            self._set_flag(name)
        self._attach()

    def _set_flag(self, name: str) -> None:
        flag = getattr(self._trt.BuilderFlag, name, None)
        if flag is None:
            raise self._unsupported()
        self._config.set_flag(flag)
        if not self._config.get_flag(flag):
            raise recipe_error("%s did not accept flag %s" % (title(self._trt), name))

    def _unsupported(self) -> WorkerError:
        return recipe_error("timing_cache: not supported by %s; leave it out" % title(self._trt))

    def _attach(self) -> None:
        job = self._job
        data = b""
        if job.start:
            with open(job.start, "rb") as source:
                data = source.read()
        try:
            cache = self._config.create_timing_cache(data)
            accepted = cache is not None and self._config.set_timing_cache(cache, False)
        except (TypeError, ValueError, RuntimeError):
            accepted = False
        if accepted and not hasattr(cache, "queryKeys"):
            raise self._unsupported()
        if not accepted or tactics(cache) != job.kernels:
            text = "timing_cache %s: %s does not accept it on this GPU; remove it, then record it again with "
            text = text % (job.label, title(self._trt))
            raise WorkerError("EngineBuildError", text + "TIMING=record")

    def _hear(self, message: str) -> None:
        found = _LAYER.search(message)
        if found:
            self._layers.append((found.group(1).strip(), found.group(2).lower()))

    def explain(self, error: WorkerError, messages: list[str]) -> WorkerError:
        """The error of a build that a missing entry stopped, which names the layer; else the same error.
        messages: TensorRT's errors."""
        missed = [each for each in self._layers if each[1] not in self._job.kernels]
        if self._job.record or not (missed or any(map(_MISS.search, messages))):
            return error
        what = "layer %s (key %s)" % missed[-1] if missed else "one of the layers"
        text = "timing_cache %s: it has no kernel for %s; add it on this hardware with TIMING=record"
        return WorkerError("EngineBuildError", text % (self._job.label, what))

    def finish(self) -> None:
        """Send the kernels of the engine, and write the serialized cache if they are recorded."""
        cache = self._config.get_timing_cache()
        found = tactics(cache)
        if not self._job.record and found != self._job.kernels:
            raise WorkerError(
                "EngineBuildError",
                "%s chose other kernels than those in timing_cache %s" % (title(self._trt), self._job.label),
            )
        if self._job.record:
            with open(self._job.record, "xb") as out:
                out.write(bytes(cache.serialize()))
        names = {key: name for name, key in self._layers}
        texts = [(key, (found[key] + " " + names.get(key, "")).rstrip()) for key in sorted(found)]
        for at in range(0, len(texts), PIECE):
            parent.send("kernels", kernels=dict(texts[at : at + PIECE]))


def tactics(cache: Any) -> dict[str, str]:
    """By key, the hash of the tactic in hexadecimal. Raises WorkerError."""
    found = {}
    for key in cache.queryKeys():
        tactic = int(cache.query(key).tacticHash)
        if tactic == _NO_TACTIC:
            raise WorkerError("EngineBuildError", "the timing cache has no value for its key %s" % key)
        found[str(key).lower()] = hex(tactic)
    return found
