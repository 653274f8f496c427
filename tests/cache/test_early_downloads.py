"""Engines that are downloaded before SCons asks for them: many at once, none that is not asked for, and as if
there had been no read-ahead where something is wrong."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parts import READER, Careless, Tree, fake_compiler, key, make_model, sha256, signer, sound
from test_shared import entry_of

from scons_tensorrt.cache import early_downloads
from scons_tensorrt.cache.early_downloads import ReadAhead, Wanted
from scons_tensorrt.cache.entry import ENGINE, blob_path, entry_path, sign_entry
from scons_tensorrt.cache.object_store import ObjectStore
from scons_tensorrt.errors import StoreError
from scons_tensorrt.files.signing_keys import SigningKey

NAMES = [f"m{number}" for number in range(6)]


class Held(Careless):
    """A server that answers when enough requests for the same kind of object wait."""

    def do_GET(self) -> None:
        server = self.server
        kind = self.path.split("/")[-2]
        with server.changed:
            server.asked.append(self.path.removeprefix("/team/x/"))
            server.waiting[kind] = server.waiting.get(kind, 0) + 1
            server.changed.notify_all()
            if not server.changed.wait_for(lambda: server.waiting[kind] >= server.together(kind), 20):
                server.alone = True
        super().do_GET()


class Server(http.server.ThreadingHTTPServer):
    """together: how many requests for an object below this folder must wait before one is answered."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, together: Callable[[str], int]) -> None:
        super().__init__(("127.0.0.1", 0), Held)
        self.together, self.slow_s, self.alone = together, 0.0, False
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.waiting: dict[str, int] = {}
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what some tests are about."""

    def fill(self, store: Path) -> None:
        for path in [*store.glob("ac/*"), *store.glob("cas/*")]:
            self.objects[f"/team/x/{path.relative_to(store)}"] = path.read_bytes()

    @property
    def env(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_address[1]}"
        return {**READER, "AWS_ENDPOINT_URL": url, "TRT_STORE": "s3://team/x"}


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(together: Callable[[str], int] = lambda kind: 1) -> Server:
        made.append(Server(together))
        return made[-1]

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def full(key, tmp_path_factory) -> tuple[Tree, Path]:
    """A tree whose engines are in a folder store, and the store."""
    folder = tmp_path_factory.mktemp("full")
    tree, store = Tree(folder / "tree"), folder / "store"
    for number, name in enumerate(NAMES):
        make_model(tree.path(f"models/{name}.onnx"), seed=number)
    tree.write(f'for name in {NAMES}: env.Engine(name, f"models/{{name}}.onnx")')
    python = fake_compiler(folder / "fake", product="tensorrt_rtx", version="1.7.1.116")
    tree.environment = {"TRT_PYTHON": str(python), "TRT_STORE_TRUSTED_KEYS": str(key.parent / "keys")}
    (folder / "sources").mkdir()
    for name in ("models", "SConstruct"):
        (shutil.copytree if name == "models" else shutil.copy)(tree.path(name), folder / "sources" / name)
    more = {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(key)}
    run = tree.scons("engines", "-j2", TRT_STORE=store.as_uri(), **more)
    assert run.built == NAMES, run.out
    return tree, store


@pytest.fixture
def clone(full, tmp_path) -> Callable[..., Tree]:
    def make(name: str = "clone", **environment: str) -> Tree:
        tree = Tree.__new__(Tree)
        tree.root = tmp_path / name
        tree.environment = {**full[0].environment, **environment}
        shutil.copytree(full[0].root.parent / "sources", tree.root)
        return tree

    return make


def test_one_job_downloads_all_at_once_and_each_file_once(full, clone, serve) -> None:
    server = serve(lambda kind: len(NAMES))
    server.fill(full[1])
    tree = clone(**server.env)
    run = tree.scons("engines")
    assert (run.status, run.names("FETCHED")) == (0, NAMES), run.out
    assert not server.alone
    assert sorted(server.asked) == sorted(name.removeprefix("/team/x/") for name in server.objects)
    for name in NAMES:
        assert sha256(tree.engine(name)) == sha256(full[0].engine(name))
        assert sound(tree.engine(name))
        assert tree.engine(name).stat().st_mode == full[0].engine(name).stat().st_mode
    assert not list(tree.path(".trt/partial").glob("*/*"))
    assert tree.scons().reused == NAMES


def test_an_unexpected_error_of_the_read_ahead_leaves_each_download_to_its_engine(full, clone) -> None:
    tree = clone(TRT_STORE=full[1].as_uri())
    with open(tree.path("SConstruct"), "a", encoding="utf-8") as file:
        file.write(
            "\nfrom scons_tensorrt.scons_tool import choose_early_downloads as module\n"
            "def at_fault(session):\n"
            "    open('asked', 'w').close()\n"
            "    return {}['a fault of our own']\n"
            "module._wanted = at_fault\n"
        )
    run = tree.scons("engines")
    assert tree.path("asked").exists(), run.out
    assert (run.status, run.names("FETCHED")) == (0, NAMES), run.out
    assert "Traceback" not in run.out


@pytest.mark.slow
def test_only_what_is_asked_for_and_is_not_here_is_downloaded(full, clone, serve) -> None:
    server = serve()
    server.fill(full[1])
    tree = clone(**server.env)
    names = {name: full[0].engine(name).relative_to(full[0].root) for name in NAMES}
    for arguments in (["-n", "engines"], ["-q", "engines"]):
        tree.scons(*arguments)
    assert server.asked == []
    assert tree.scons(str(names["m1"]), str(names["m2"])).names("FETCHED") == ["m1", "m2"]
    assert len(server.asked) == 4
    tree.engine("m1").unlink()
    other = tree.path("engines/other") / tree.engine("m2").name
    other.parent.mkdir()
    for path in (tree.engine("m2"), tree.sidecar("m2")):  # reused from there
        path.rename(other.parent / path.name)
    run = tree.scons("engines")
    assert run.names("FETCHED") == ["m0", "m1", "m3", "m4", "m5"]
    assert run.reused == ["m2"]
    assert len(server.asked) == 4 + 2 * 5


def test_what_is_wrong_in_the_store_is_reported_once_and_compiled_and_the_rest_fetched(
    full, clone, serve
) -> None:
    server = serve()
    server.fill(full[1])
    paths = {name: f"/team/x/{blob_path(sha256(full[0].engine(name)))}" for name in NAMES}
    data = server.objects[paths["m1"]]
    server.objects[paths["m1"]] = data[:-1] + bytes([data[-1] ^ 1])
    server.objects[paths["m2"]] = data[:100]
    del server.objects[paths["m3"]]
    receipt = full[0].receipt("m4")
    server.objects[f"/team/x/{entry_path(ENGINE, receipt['key'])}"] = b"garbage"
    tree = clone(**server.env)
    run = tree.scons("engines")
    assert (run.status, run.built, run.names("FETCHED")) == (0, NAMES[1:5], ["m0", "m5"]), run.out
    said = [line for line in run.out.splitlines() if line.startswith("engines: ") and "store" in line]
    for name, words in (
        ("m1", "the store's data of m1__"),
        ("m2", "the store's data of m2__"),
        ("m3", "the store has an entry of m3__"),
        ("m4", "the store's entry of m4__"),
    ):
        assert len([line for line in said if words in line]) == 1, (name, run.out)
    assert len(said) == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, None])
def test_a_run_that_ends_during_the_read_ahead_leaves_nothing(full, clone, serve, how) -> None:
    """None: an engine fails, which stops the run."""
    server = serve(lambda kind: 99 if kind == "cas" else 1)
    server.fill(full[1])
    tree = clone(**server.env)
    if how is None:
        make_model(tree.path("models/m0.onnx"), seed=99)  # not in the store
        act = "raise SystemExit(3)"
        python = fake_compiler(tree.path("fake"), act, product="tensorrt_rtx", version="1.7.1.116")
        tree.environment["TRT_PYTHON"] = str(python)
    process = tree.start("engines")
    with server.changed:
        assert server.changed.wait_for(lambda: server.waiting.get("cas", 0) >= 5, 30)
    began = time.monotonic()
    if how is not None:
        process.send_signal(how)
    out = process.communicate(timeout=60)[0].decode()
    assert time.monotonic() - began < 10
    assert process.returncode == (-how if how == signal.SIGKILL else 2), out
    assert "Traceback" not in out
    assert not tree.engines()
    left = [path for path in tree.path(".trt").rglob("*") if path.is_file() and path.stat().st_size > 500]
    assert [path for path in left if path.suffix not in (".json", ".jsonl", ".log")] == []
    with server.changed:
        server.together = lambda kind: 1
        server.changed.notify_all()
    tree.environment["TRT_PYTHON"] = full[0].environment["TRT_PYTHON"]
    run = tree.scons("engines", "-j2")
    assert (run.status, run.names("FETCHED")) == (0, NAMES[how is None :])
    assert not list(tree.path(".trt/partial").glob("*/*"))


@pytest.mark.slow
def test_an_engine_of_a_converted_onnx_is_known_from_the_entry_of_that_onnx(
    key, full, serve, tmp_path
) -> None:
    tree, store, names = Tree(tmp_path / "first"), tmp_path / "store", ["h0", "h1"]
    for number, name in enumerate(names):
        make_model(tree.path(f"models/{name}.onnx"), seed=number)
    tree.write(f'for name in {names}: env.Engine(name, f"models/{{name}}.onnx", precision="fp16")')
    tree.environment = dict(full[0].environment)
    sources = tmp_path / "second"
    shutil.copytree(tree.root, sources)
    more = {"TRT_STORE_MODE": "write", "TRT_STORE_SIGNING_KEY": str(key)}
    assert tree.scons("engines", "-j2", TRT_STORE=store.as_uri(), **more).built == names
    # No data before all four entries are asked for; those of the engines need the others.
    server = serve()
    server.fill(store)
    server.together = lambda kind: max(1, 5 - server.waiting.get("ac", 0)) if kind == "cas" else 1
    second = Tree.__new__(Tree)
    second.root, second.environment = sources, {**full[0].environment, **server.env}
    run = second.scons("engines", TRT_ONNX_PYTHON="/nowhere/python")
    assert (run.status, run.names("FETCHED")) == (0, names), run.out
    assert not server.alone
    assert sorted(server.asked) == sorted(name.removeprefix("/team/x/") for name in server.objects)
    server.asked.clear()
    for path in sources.glob(".trt/onnx/*.onnx"):  # the engines are there: only these are fetched
        path.unlink()
    run = second.scons("engines", TRT_ONNX_PYTHON="/nowhere/python")
    assert (run.status, run.reused) == (0, names), run.out
    assert len(server.asked) == 4


# The parts.


class Shelf:
    """A folder store with entries, and a read-ahead of it."""

    def __init__(self, folder: Path, signer: SigningKey) -> None:
        self.folder, self.signer = folder, signer
        self.remote = ObjectStore((folder / "store").as_uri(), writes=True)
        self.ahead = ReadAhead(self.remote, {signer.trusted.name: signer.trusted})

    def put(self, number: int, data: bytes) -> Wanted:
        entry = entry_of(data, number)
        self.remote.replace(entry.path, sign_entry(entry, self.signer))
        self.remote.replace(blob_path(entry.sha256), data)
        return Wanted(ENGINE, entry.key, entry.name)

    def begin(self, wanted: Wanted, folder: Path) -> None:
        self.ahead.add([wanted], folder)
        wait_until(lambda: not self.ahead._queue)

    def get(self, wanted: Wanted, data: bytes, to: Path) -> bool | None:
        """Whether the data was there; None if its entry was not."""
        if self.ahead.entry(wanted.kind, wanted.key) is None:
            return None
        sha = entry_of(data).sha256
        return self.ahead.place(sha, to, lambda done: None) is not None and to.read_bytes() == data


@pytest.fixture
def shelf(tmp_path, signer) -> Iterator[Shelf]:
    made = Shelf(tmp_path, signer)
    yield made
    made.ahead.close()


def held(ahead: ReadAhead) -> int:
    return len(ahead._held)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_window_moves_as_entries_are_asked_for(shelf, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(early_downloads, "AHEAD", 3)
    contents = [os.urandom(1000) for _ in range(8)]
    wanted = [shelf.put(number, data) for number, data in enumerate(contents)]
    shelf.ahead.add(wanted, tmp_path)
    wait_until(lambda: held(shelf.ahead) == 3 and not shelf.ahead._working)
    assert shelf.get(wanted[7], contents[7], tmp_path / "7") is None  # not begun: the run downloads it
    for number in range(7):
        wait_until(lambda place=wanted[number][:2]: place in shelf.ahead._held)
        assert shelf.get(wanted[number], contents[number], tmp_path / str(number))
    assert held(shelf.ahead) == 0


def test_data_waits_for_room_and_what_is_asked_for_does_not(shelf, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(early_downloads, "MOST_BYTES", 1500)
    contents = [os.urandom(1000), os.urandom(1000), os.urandom(5000)]
    wanted = [shelf.put(number, data) for number, data in enumerate(contents)]
    shelf.ahead.add(wanted, tmp_path)
    wait_until(lambda: held(shelf.ahead) == 3 and all(e.read.is_set() for e in shelf.ahead._held.values()))
    assert sum(each.size for each in shelf.ahead._held.values()) == 1000
    order = sorted((0, 1), key=lambda n: shelf.ahead._held[wanted[n][:2]].size)
    assert all(shelf.get(wanted[n], contents[n], tmp_path / str(n)) for n in order)
    assert shelf.get(wanted[2], contents[2], tmp_path / "2") is False  # larger than all the room


@pytest.mark.parametrize("place", ["nowhere/folder", "file"])
def test_where_no_data_can_be_kept_entries_still_are(shelf, tmp_path, place) -> None:
    (tmp_path / "file").write_bytes(b"")
    data = os.urandom(1000)
    wanted = shelf.put(1, data)
    shelf.begin(wanted, tmp_path / place)
    assert shelf.get(wanted, data, tmp_path / "made") is False


def test_data_that_cannot_be_placed_is_not_there(shelf, tmp_path) -> None:
    data = os.urandom(1000)
    wanted = shelf.put(1, data)
    shelf.begin(wanted, tmp_path)
    assert shelf.get(wanted, data, tmp_path / "nowhere" / "made") is False


def test_only_entries_are_downloaded_where_data_is_not_wanted(shelf, tmp_path) -> None:
    data = os.urandom(1000)
    wanted = shelf.put(1, data)._replace(data=False)
    shelf.remote.remove(blob_path(entry_of(data).sha256))
    shelf.begin(wanted, tmp_path)
    assert shelf.get(wanted, data, tmp_path / "made") is False


def test_a_store_that_fails_is_reported_to_who_waits_and_not_asked_again(shelf, tmp_path, signer) -> None:
    begun, go = threading.Event(), threading.Event()

    class Failing(ObjectStore):
        def read(self, path: str, most: int = 4 << 20) -> tuple[bytes, float] | None:
            begun.set()
            go.wait(20)
            raise StoreError("it is down")

    ahead = ReadAhead(Failing(shelf.remote.url), {signer.trusted.name: signer.trusted})
    wanted = [shelf.put(number, b"%d" % number) for number in range(9)]
    ahead.add(wanted, tmp_path)
    begun.wait(20)
    threading.Timer(0.2, go.set).start()
    with pytest.raises(StoreError, match="it is down"):
        ahead.entry(*wanted[0][:2])
    wait_until(lambda: not ahead._working)
    assert [ahead.entry(*each[:2]) for each in wanted] == [None] * 9
    assert shelf.remote.read(entry_path(*wanted[0][:2])) is not None
    ahead.close()
