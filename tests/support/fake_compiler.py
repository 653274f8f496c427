#!@PYTHON@ -S
"""Plays an interpreter with TensorRT; see `fake_compiler` in tests/conftest.py."""
import hashlib
import json
import os
import signal
import sys
import time

PRODUCT, VERSION, FOLDER = "@PRODUCT@", "@VERSION@", "@FOLDER@"


def plan(job):
    body = hashlib.sha256(open(os.path.join(job["folder"], job["onnx"]), "rb").read()).digest() * 64
    body += json.dumps([job["recipe"], job["hardware"]], sort_keys=True).encode()
    masks = {75: 1, 80: 2, 86: 4, 89: 8, 120: 16, 121: 32}
    if job["product"] == "tensorrt":
        return b"ftrt" + b"\0" * 60 + body
    size = (64 + len(body)).to_bytes(8, "little")
    mask = sum(masks[sm] for sm in job["architectures"]).to_bytes(4, "little")
    return b"vtrt" + b"\0" * 12 + size + bytes([1, 7, 1, 116]) + b"\0" * 4 + mask + b"\0" * 28 + body


def write(data=None):
    data = plan(job) if data is None else data
    with open(job["output"], "wb") as out:
        out.write(data)
    return data


def done(data):
    event = {
        "event": "done",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "version": VERSION,
        "python": "3.10.12",
        "peak_memory_bytes": 1 << 20,
        "not_reproducible_because": "a fake made it",
    }
    print(json.dumps(event), flush=True)


if "-I" not in sys.argv:
    products = {PRODUCT: {"version": VERSION, "cuda": "13.0", "folder": FOLDER}}
    here = {"os": "linux", "machine": os.uname().machine}
    answer = {"python": "3.10.12", "executable": sys.argv[0], "path": [FOLDER], "products": products}
    print(json.dumps({**answer, **here}))
    raise SystemExit
stdin = sys.stdin.buffer
job = json.loads(stdin.read(int(stdin.read(16))))
with open(os.path.join(FOLDER, "compiled"), "a") as calls:
    calls.write(os.path.basename(job["hardware"].get("gpu_name", "?")) + "\n")
@ACT@
