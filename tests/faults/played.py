"""A compiler and a converter that are played: what they make tells all that it is made from, so a model
of a tree knows it beforehand.

`exchange` in the tree's root, a JSON list of a path and a hex text, lets the converter write those bytes
into the file while it works and put the old ones back, mtime included.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ACT = """
link = {}
exec(dict(job["modules"])["scons_tensorrt.worker.common.parent"], link)
link["die_with_parent"]()
onnx = open(os.path.join(job["folder"], job["onnx"]), "rb").read()
made = [hashlib.sha256(onnx).hexdigest(), job["recipe"]["workspace_mb"], job["hardware"]["sm_count"]]
for path, descriptor in job["plugins"]:
    with open("/proc/self/fd/%d" % descriptor, "rb") as plugin:
        made.append(hashlib.sha256(plugin.read()).hexdigest())
data = (b"ftrt" + json.dumps(made).encode().ljust(300)) * 500
root = job["output"].split("/.trt/")[0]
with open(root + "/compiled", "a") as calls:
    calls.write(hashlib.sha256(data).hexdigest() + "\\n")
while os.path.exists(root + "/slow") and os.getppid() != 1:
    time.sleep(0.01)
done(write(data))
"""
CONVERTER = """#!{python}
import hashlib, json, os, sys

def sha(data):
    return hashlib.sha256(data).hexdigest()

def read(path):
    with open(path, "rb") as source:
        return source.read()

def put(path, data, stat):
    with open(path, "r+b") as out:
        out.truncate(out.write(data))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

def send(event, **fields):
    print(json.dumps(dict(fields, event=event)), flush=True)

job = json.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.read(16))))
link = {{}}
exec(dict(job["modules"])["scons_tensorrt.worker.common.parent"], link)
link["die_with_parent"]()
root = job["target"].split("/.trt/")[0]
exchanged = None
if os.path.exists(root + "/exchange"):
    path, other = json.loads(read(root + "/exchange"))
    if os.path.exists(path):
        exchanged = path, read(path), os.stat(path)
        put(path, bytes.fromhex(other), exchanged[2])
onnx = {{role: read(path) for role, path in job["onnx"].items()}}
samples = read(job["samples"]["path"]) if job["samples"] else b""
if exchanged:
    put(*exchanged)
if b"bad" in samples:
    send("error", error_class="AccuracyError", message="output `y` is beyond its bound")
    sys.exit(1)
facts = {{}}
if job["kind"] == "precision":
    data = onnx["onnx"] + b"\\x12\\x40" + sha(onnx["onnx"]).encode()  # as the producer's name
else:
    made = [sha(onnx["reference"]), sha(onnx["converted"]), sha(samples)]
    data = json.dumps(made).encode()
    figures = {{"error": 0.0, "bound": 1.0, "cosine": 1.0, "max_abs": 0.0}}
    facts = {{"samples": 1, "metric": "elemwise", "outputs": {{"y": figures}}}}
with open(root + "/converted", "a") as calls:
    calls.write(sha(data) + "\\n")
with open(job["target"], "wb") as out:
    out.write(data)
send("done", facts=facts)
"""
# Of one length, so that an edit can restore all of a stat but the ctime.
SAMPLES = (b"good samples, 1", b"good samples, 2", b"bad samples, 3.")


def fake_converter(folder: Path) -> Path:
    """A stand-in for the interpreter that has onnx."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "converter"
    script.write_text(CONVERTER.format(python=sys.executable))
    script.chmod(0o755)
    return script


@cache
def plugins() -> tuple[bytes, ...]:
    """Two libraries."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(_library(Path(folder), number) for number in range(2))


def _library(folder: Path, number: int) -> bytes:
    source, made = folder / "p.c", folder / "libp.so"
    source.write_text(f"int version(void) {{ return {number}; }}\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source], check=True)
    return made.read_bytes()


def engine_of(onnx: bytes, workspace_mb: int, sm_count: int, *plugin: bytes) -> bytes:
    """What the compiler makes."""
    made = [sha(onnx), workspace_mb, sm_count, *map(sha, plugin)]
    return (b"ftrt" + json.dumps(made).encode().ljust(300)) * 500


def half_of(onnx: bytes) -> bytes:
    """What the converter makes of a model."""
    return onnx + b"\x12\x40" + sha(onnx).encode()


def figures_of(onnx: bytes, samples: bytes) -> bytes:
    """What the accuracy gate writes of a model and its conversion."""
    return json.dumps([sha(onnx), sha(half_of(onnx)), sha(samples)]).encode()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
