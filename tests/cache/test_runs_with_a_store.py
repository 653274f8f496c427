"""Real runs of scons with a store: what a team made once is fetched, and whatever is wrong with the
store, the engines come out as if there were none."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from parts import (
    READER,
    WRITER,
    Careless,
    Tree,
    fake_compiler,
    hardware,
    key,
    make_model,
    s3,
    sha256,
    signer,
    sound,
    wire,
)
from test_shared import Drip

ENGINES = """
env.Engine("a", "models/a.onnx")
env.Engine("b", "models/b.onnx", precision="fp16")
"""
FETCHED = re.compile(r"FETCHED \S+ \([\d.]+ [kM]B, [\d.]+ s\) because not built before")


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """A tree that was never built: an engine of an ONNX as it is, one of a converted ONNX."""
    tree = Tree(tmp_path_factory.mktemp("sources") / "tree")
    make_model(tree.path("models/a.onnx"), seed=1)
    make_model(tree.path("models/b.onnx"), seed=2)
    tree.write(ENGINES)
    return tree.root


@pytest.fixture
def clone(sources, tmp_path):
    def make(name: str, **environment: str) -> Tree:
        tree = Tree.__new__(Tree)
        tree.root, tree.environment = tmp_path / name, environment
        shutil.copytree(sources, tree.root)
        return tree

    return make


@pytest.fixture(scope="session")
def writes(key) -> dict[str, str]:
    return {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(key)}


@pytest.fixture(scope="session")
def reads(key) -> dict[str, str]:
    return {"TRT_STORE_TRUSTED_KEYS": str(key.parent / "keys")}


@pytest.fixture(scope="session")
def full(s3, sources, writes, tmp_path_factory) -> Tree:
    """The clone that filled the S3 store."""
    tree = Tree.__new__(Tree)
    tree.root = tmp_path_factory.mktemp("full") / "tree"
    tree.environment = {"TRT_STORE": s3.url, **s3.env(WRITER), **writes}
    shutil.copytree(sources, tree.root)
    run = tree.scons("engines", "-j2")
    assert run.built == ["a", "b"], run.out
    assert re.search(r"engines: 3 uploaded to s3://\S+ \([\d.]+ MB\)", run.out)
    return tree


def stored(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_fresh_clone_fetches_everything_and_compiles_and_converts_nothing(s3, full, clone, reads):
    nowhere = {"TRT_ONNX_PYTHON": "/nowhere/python"}
    tree = clone("fresh", TRT_STORE=s3.url, **s3.env(READER), **reads, **nowhere)
    run = tree.scons("engines", "-j2")
    assert run.status == 0, run.out
    assert len([line for line in run.out.splitlines() if FETCHED.fullmatch(line)]) == 3, run.out
    assert "CONVERTED" not in run.out
    assert run.summary.startswith("engines: 0 reused, 0 built, 2 fetched, 0 failed in ")
    assert not [p for p in tree.path(".trt").rglob("*.log") if p.parent.name == "logs"]  # no worker ran
    for name in ("a", "b"):
        assert sound(tree.engine(name))
        assert sha256(tree.engine(name)) == sha256(full.engine(name))
    fetched = tree.receipt("a")["fetched"]
    assert fetched["from"] == s3.url
    assert tree.receipt("a")["worker"] == full.receipt("a")["worker"]
    events = [e for e in tree.events() if e["event"] == "engine.cache.fetched"]
    assert sorted(e["model_name"] for e in events) == ["a", "b"]
    assert {(e["outcome"], e["reason"]) for e in events} == {("fetched", "new")}
    assert events[0]["size"] > 1000
    assert tree.scons().reused == ["a", "b"]  # with no store's help
    verify = [tree.command()[0], "-m", "scons_tensorrt", "verify", str(tree.path("engines"))]
    assert subprocess.run(verify, env=tree.env(), check=False).returncode == 0


def test_a_changed_model_is_a_miss_and_the_other_is_fetched(s3, full, clone, reads):
    tree = clone("changed", TRT_STORE=s3.url, **s3.env(READER), **reads)
    make_model(tree.path("models/a.onnx"), seed=3)
    run = tree.scons()
    assert (run.built, run.names("FETCHED")) == (["a"], ["b"])


def test_a_store_that_is_not_there_is_told_once_and_stops_nothing(clone, reads):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    tree = clone("down", TRT_STORE="s3://team/x", AWS_ENDPOINT_URL=endpoint, **READER, **reads)
    run = tree.scons("engines", "-j2")
    assert run.built == ["a", "b"]
    assert run.status == 0
    assert len(re.findall("not using the store s3://team/x for the rest of this run: ", run.out)) == 1


def test_a_store_lost_in_the_middle_of_an_engine(s3, full, clone, reads, wire):
    """Its entry came, and half of its bytes: the compile takes its place."""
    cut = wire(s3.port, 60_000)
    tree = clone("lost", TRT_STORE=s3.url, **s3.env(READER, cut.port), **reads)
    run = tree.scons("engines")
    assert run.status == 0, run.out
    assert "not using the store " in run.out
    assert sorted(run.built + run.names("FETCHED")) == ["a", "b"]
    assert run.built
    for name in ("a", "b"):
        assert sha256(tree.engine(name)) == sha256(full.engine(name))
    assert not list(tree.path(".trt/partial").glob("*/*"))


def test_an_engine_that_was_poisoned_in_the_store_is_compiled_here(clone, writes, reads, tmp_path):
    store = tmp_path / "store"
    there = {"TRT_STORE": store.as_uri()}
    first = clone("first", **there, **writes)
    assert first.scons("engines", "-j2").built == ["a", "b"]
    digest = sha256(first.engine("a"))
    with open(store / "cas" / digest, "r+b") as blob:
        blob.seek(-1, os.SEEK_END)
        blob.write(b"!")
    before = stored(store)
    run = clone("reader", **there, **reads).scons()
    assert (run.built, run.names("FETCHED")) == (["a"], ["b"])
    assert "the store's data of a__" in run.out
    assert stored(store) == before  # a reader changes nothing
    run = clone("writer", **there, **writes).scons()
    assert "; removed" in run.out
    assert run.built == ["a"]
    assert clone("again", **there, **reads).scons().names("FETCHED") == ["a", "b"]


def test_without_trust_nothing_is_taken_and_that_is_told_once(s3, full, clone):
    tree = clone("trusting", TRT_STORE=s3.url, **s3.env(READER))
    run = tree.scons()
    assert run.built == ["a", "b"]
    assert run.out.count("STORE_TRUSTED_KEYS= names no key") == 1


def test_a_dry_run_and_a_null_build_ask_no_store(clone, reads, full, s3):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        more = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", **READER, **reads}
        tree = clone("dry", TRT_STORE="s3://team/x", **more)
        assert tree.scons("-n", "engines").lines("WOULD")
        assert full.scons(**more).reused == ["a", "b"]
        with pytest.raises(BlockingIOError):  # nobody came
            silent.accept()


def test_what_cannot_be_given_in_time_is_told_and_holds_up_no_engine(clone, writes):
    with Careless.served(slow_s=30) as server:
        more = {"AWS_ENDPOINT_URL": server.url, **WRITER, **writes, "TRT_STORE_WAIT": "0.5"}
        tree = clone("slow", TRT_STORE="s3://team/x", **more)
        fake = fake_compiler(tree.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
        names = "abcdef"
        engine = 'env.Engine("{}", "models/a.onnx", workspace_mb={})\n'
        tree.write("".join(engine.format(name, ord(name)) for name in names))
        began = time.monotonic()
        run = tree.scons(TRT_PYTHON=str(fake))
        assert run.built == list(names)
        assert "engines: 6 not uploaded to s3://team/x within 0.5 s (TRT_STORE_WAIT)" in run.out
        assert time.monotonic() - began < 25


def test_a_store_that_says_nothing_is_given_up_once(clone, reads):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        more = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", **READER, **reads}
        tree = clone("silent", TRT_STORE="s3://team/x", TRT_STORE_PATIENCE="0.3", **more)
        fake = fake_compiler(tree.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
        tree.write('env.Engine("a", "models/a.onnx")\nenv.Engine("c", "models/a.onnx", workspace_mb=9)')
        run = tree.scons(TRT_PYTHON=str(fake))
        assert run.built == ["a", "c"]
        assert run.out.count("not using the store ") == 1


@pytest.mark.slow
def test_a_refusal_that_lasts_is_shared_and_can_be_overridden(clone, writes, reads, tmp_path):
    import onnx
    from onnx import TensorProto, helper

    store = tmp_path / "store"
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
    ]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def tree(name: str, **environment: str) -> Tree:
        made = clone(name, TRT_STORE=store.as_uri(), **environment)
        onnx.save_model(model, made.path("models/a.onnx"))
        made.write('env.Engine("a", "models/a.onnx")')
        return made

    first = tree("first", **writes).scons()
    assert first.failed == ["a"]
    assert [name.partition("/")[0] for name in stored(store)] == ["no"]
    second = tree("second", **reads)
    run = second.scons()
    assert re.search(r"\(recorded in the store on 2\d\d\d-.*STORE_REFUSALS=ignore compiles", run.out)
    assert "Det" in run.out
    assert not second.path(".trt/logs").exists()  # no worker ran
    run = second.scons("engines", "STORE_REFUSALS=ignore")
    assert "recorded in the store" not in run.out
    assert "log: .trt/logs/" in run.out


@pytest.mark.parametrize(
    "act",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",  # as the kernel does, out of memory
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "time.sleep(60)",  # until timeout_s
        "print(json.dumps({'event': 'error', 'error_class': 'EngineBuildError', 'message': 'x'}))",
    ],
)
def test_a_crash_and_a_timeout_are_nobody_elses_news(clone, writes, tmp_path, act):
    store = tmp_path / "store"
    tree = clone("crash", TRT_STORE=store.as_uri(), **writes)
    fake = fake_compiler(tree.path("fake"), act, product="tensorrt_rtx", version="1.7.1.116")
    tree.write('env.Engine("a", "models/a.onnx", timeout_s=1)')
    assert tree.scons(TRT_PYTHON=str(fake)).failed == ["a"]
    assert stored(store) == []


@pytest.mark.slow
def test_a_second_publisher_keeps_its_own_engine_and_the_store_the_first(clone, writes, reads, tmp_path):
    """As with TensorRT on a GPU, which does not repeat its bytes."""
    store = tmp_path / "store"
    trees, digests = [], []
    for name in ("one", "two"):
        tree = clone(name, TRT_STORE=store.as_uri(), **writes)
        hardware(tree.path("hardware/orin.json"))
        tree.write('env.Engine("a", "models/a.onnx")')
        act = f"done(write(plan(job) + {name.encode()!r}))"
        tree.environment["TRT_PYTHON"] = str(fake_compiler(tree.path("fake"), act))
        trees.append(tree)
    one, two = trees
    assert one.scons("engines", "HARDWARE=orin").built == ["a"]
    (store / "cas").rename(tmp_path / "away")  # not to be had while the second compiles
    (store / "ac").rename(tmp_path / "entries")
    process = two.start("engines", "HARDWARE=orin")
    assert b"BUILT" in process.communicate(timeout=60)[0]
    digests = [sha256(tree.engine("a")) for tree in trees]
    assert digests[0] != digests[1]
    shutil.rmtree(store / "ac")
    (tmp_path / "entries").rename(store / "ac")
    (tmp_path / "away" / digests[0]).rename(store / "cas" / digests[0])
    three = clone("three", TRT_STORE=store.as_uri(), **reads)
    hardware(three.path("hardware/orin.json"))
    three.write('env.Engine("a", "models/a.onnx")')
    run = three.scons("engines", "HARDWARE=orin", TRT_PYTHON=one.environment["TRT_PYTHON"])
    assert run.names("FETCHED") == ["a"], run.out
    assert sha256(three.engine("a")) == digests[0]


def test_ctrl_c_in_the_middle_of_a_fetch_leaves_nothing(s3, full, clone, reads, wire):
    slow = wire(s3.port, slow_s=1.0)
    tree = clone("stopped", TRT_STORE=s3.url, **s3.env(READER, slow.port), **reads)
    process = tree.start("engines")
    end = time.monotonic() + 60
    while not list(tree.path(".trt/partial").glob("*/*.engine")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0].decode()
    assert time.monotonic() - began < 5
    assert "Traceback" not in out
    assert not tree.engines()
    assert not list(tree.path(".trt/partial").glob("*/*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["STORE=/srv/store"], "write file:///FOLDER, s3://"),
        (["STORE=file:///srv/x", "STORE_MODE=rw"], "write STORE_MODE=read or STORE_MODE=write"),
        (["STORE=file:///srv/x", "STORE_MODE=write"], "needs STORE_SIGNING_KEY=FILE"),
        (["STORE=file:///srv/x", "STORE_REFUSALS=no"], "STORE_REFUSALS=use or STORE_REFUSALS=ignore"),
    ],
)
def test_a_wrong_setting_is_told_as_the_sconscript_is_read(clone, arguments, words):
    run = clone("wrong").scons("engines", *arguments)
    assert run.status == 2
    assert words in run.out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"TRT_STORE": "file:///nowhere/store"}, "no such folder: /nowhere/store"),
        ({"TRT_STORE_TRUSTED_KEYS": "nobody.pub"}, "nobody.pub: No such file or directory"),
        (
            {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": "models/a.onnx"},
            "models/a.onnx: not an unencrypted PEM private key",
        ),
    ],
)
def test_a_store_that_cannot_be_opened_is_told_and_stops_nothing(clone, reads, tmp_path, more, words):
    (tmp_path / "store").mkdir()
    tree = clone("closed", **{"TRT_STORE": (tmp_path / "store").as_uri(), **reads, **more})
    tree.write('env.Engine("a", "models/a.onnx")')
    fake = fake_compiler(tree.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
    run = tree.scons(TRT_PYTHON=str(fake))
    assert run.built == ["a"]
    assert len([line for line in run.out.splitlines() if words in line]) == 1, run.out


def test_the_names_of_the_last_release_upload_and_download(clone, writes, reads, tmp_path):
    fake = fake_compiler(tmp_path / "fake", product="tensorrt_rtx", version="1.7.1.116")
    there = {"TRT_STORE": (tmp_path / "store").as_uri(), "TRT_PYTHON": str(fake)}
    old = {"TRT_STORE_MODE": "write", "TRT_STORE_KEY": writes["TRT_STORE_SIGNING_KEY"]}
    first, second = clone("first", **there, **old), clone("second", **there)
    for tree in (first, second):
        tree.write('env.Engine("a", "models/a.onnx")')
    assert first.scons().built == ["a"]
    run = second.scons("engines", f"STORE_TRUST={reads['TRT_STORE_TRUSTED_KEYS']}")
    assert run.names("FETCHED") == ["a"], run.out


def test_the_events_and_receipts_hold_no_secret(full, key):
    secret = key.read_text().splitlines()[1]
    for path in [p for p in full.path(".trt").rglob("*") if p.is_file()]:
        data = path.read_bytes()
        assert secret.encode() not in data
        assert WRITER["AWS_SECRET_ACCESS_KEY"].encode() not in data
    assert json.loads(full.path(".trt/declared.json").read_text())["engines"]


@pytest.mark.parametrize("value", [None, True, -7, 1e300, "x\ny", [], [[7]], {}, {"a": {"b": [None]}}])
@pytest.mark.slow
def test_details_of_other_types_that_a_trusted_key_signed_stop_nothing(
    clone, writes, reads, signer, tmp_path, value
):
    """Receipts take them over, and every later run reads these."""
    store = tmp_path / "store"
    fake = fake_compiler(tmp_path / "fake", product="tensorrt_rtx", version="1.7.1.116")
    there = {"TRT_STORE": store.as_uri(), "TRT_PYTHON": str(fake)}
    first = clone("first", **there, **writes)
    first.write('env.Engine("a", "models/a.onnx")')
    assert first.scons().built == ["a"]
    (place,) = (store / "ac").iterdir()
    body = json.loads(json.loads(place.read_text())["body"])
    body["details"] = {**dict.fromkeys(body["details"], value), "accuracy": value, "fetched": value}
    text = json.dumps(body)
    signature = signer.sign(b"scons-tensorrt store entry 1\n" + text.encode()).hex()
    place.write_text(json.dumps({"body": text, "signature": signature}))
    tree = clone("reader", **there, **reads)
    tree.write('env.Engine("a", "models/a.onnx")')
    run = tree.scons()
    assert (run.status, run.names("FETCHED")) == (0, ["a"]), run.out
    for run in (tree.scons(), tree.scons("engines-report")):
        assert run.status == 0, run.out
        assert "Traceback" not in run.out
    for command in (["status"], ["explain", str(tree.engine("a"))]):
        done = subprocess.run(
            [tree.command()[0], "-m", "scons_tensorrt", *command],
            env=tree.env(),
            cwd=tree.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr


def test_a_server_that_drips_is_given_up_once(clone, reads):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        more = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}", **READER, **reads}
        tree = clone("drips", TRT_STORE="s3://team/x", TRT_STORE_TIMEOUT="0.5", **more)
        fake = fake_compiler(tree.path("fake"), product="tensorrt_rtx", version="1.7.1.116")
        tree.write('env.Engine("a", "models/a.onnx")\nenv.Engine("c", "models/a.onnx", workspace_mb=9)')
        run = tree.scons(TRT_PYTHON=str(fake))
        assert run.built == ["a", "c"]
        told = "for the rest of this run: an operation took longer than STORE_TIMEOUT allows"
        assert run.out.count(told) == 1
        server.shutdown()
