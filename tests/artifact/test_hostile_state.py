"""State that somebody else wrote, or that is not what it seems: believed by rules, refused in words,
never written, hashed or swept through a link."""

import json
import os
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.publish import Publication
from scons_tensorrt.artifact.receipt import Receipt, ReceiptFolder
from scons_tensorrt.artifact.state_folder import StateFolder
from scons_tensorrt.errors import ReceiptError
from scons_tensorrt.files.digest_cache import DigestCache
from scons_tensorrt.files.json_cache import JsonCache
from scons_tensorrt.files.writing import new_file, sync_file, write_atomic

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
SHA, FALSE = "0123456789abcdef" * 4, "f" * 64
DEEP = b"[" * 100_000
HUGE = b"1" * 100_000  # more digits than int() takes
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**4000, -1, "\udcff", "../../x", "/etc/passwd", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


# Receipts.


def written(ingredients, **changes):
    fields = {"schema": 1, "engine": NAME, "sha256": SHA, "size": 7, "ingredients": ingredients}
    fields["key"] = make_key(NAME, ingredients)
    return json.dumps({**fields, **changes}).encode()


def test_a_sound_receipt_is_loaded():
    assert Receipt.load(written({"input onnx": SHA})).sha256 == SHA


FORGED = [
    written({"input onnx": 5}),  # its key fits, and messages would cut it short
    written({"input onnx": None}),
    written({"input onnx": ["x"]}),
    written({}, sha256="é" * 64),  # 64 characters, and no sum
    written({}, sha256="../../../../../../../../../../../../../../../etc/passwd/../../../../"[:64]),
    written({}, sha256=SHA.upper()),
    written({}, size=-1),
    written({}, size=True),
    written({}).replace(b": 7", b": " + HUGE),
    written({}).replace(b": 7", b": 1e999"),
]


@pytest.mark.parametrize("data", FORGED, ids=[repr(d[:60]) for d in FORGED])
def test_a_forged_receipt_is_refused(data):
    with pytest.raises(ReceiptError):
        Receipt.load(data)


@given(st.sampled_from(["sha256", "size", "engine", "ingredients", "schema", "key"]), json_values)
def test_whatever_json_stands_in_a_receipt_it_is_loaded_or_refused(field, value):
    ingredients = {"input onnx": SHA, field: value} if field == "ingredients" else {"input onnx": SHA}
    try:
        data = written(ingredients, **({} if field == "ingredients" else {field: value}))
    except (TypeError, ValueError):
        return
    try:
        loaded = Receipt.load(data)
    except ReceiptError:
        return
    assert all(isinstance(text, str) for text in loaded.ingredients.values())
    assert Receipt.load(loaded.dump()) == loaded


@pytest.fixture
def state(tmp_path):
    (tmp_path / "engines").mkdir()
    return StateFolder(tmp_path / ".trt", tmp_path)


def receipt(data=b"engine"):
    import hashlib

    ingredients = {"input onnx": hashlib.sha256(b"of " + data).hexdigest()}
    key = make_key(NAME, ingredients)
    return Receipt(NAME, key, hashlib.sha256(data).hexdigest(), len(data), ingredients, {})


@pytest.mark.parametrize("odd", ["pipe", "hole", "folder"])
def test_a_receipt_that_is_no_file_is_none(state, odd):
    path = state.receipts.path(receipt())
    path.parent.mkdir(parents=True)
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    else:
        with open(path, "wb") as out:
            out.truncate(1 << 40)
    assert ReceiptFolder(state.root / "receipts").of_key(NAME, receipt().key) == []


# The digest memo.


@pytest.fixture
def planted(state, tmp_path):
    """A memo that says something false of the file `f`; and what it is asked."""
    (tmp_path / "f").write_bytes(b"first")
    stat = (tmp_path / "f").stat()
    stamp = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    entry = {"stat": stamp, "sha256": FALSE, "facts": {}}
    write_atomic(state.digests, json.dumps({"schema": 1, "files": {"f": entry}}).encode(), False, mode=0o600)
    return lambda: DigestCache(state.digests, tmp_path).sha256(tmp_path / "f") == FALSE


def test_ones_own_memo_is_believed(planted):
    assert planted()


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o622])
def test_a_memo_that_others_can_write_is_not_believed(planted, state, mode):
    state.digests.chmod(mode)
    assert not planted()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_memo_is_not_believed(planted, state):
    os.chown(state.digests, 1234, 1234)
    assert not planted()


def test_a_memo_is_written_for_its_user_alone(state, tmp_path, monkeypatch):
    monkeypatch.setattr("scons_tensorrt.files.digest_cache.FINE_TICK_NS", 0)
    (tmp_path / "f").write_bytes(b"first")
    digest_cache = DigestCache(state.digests, tmp_path)
    digest_cache.sha256(tmp_path / "f")
    digest_cache.save()
    assert state.digests.stat().st_mode & 0o777 == 0o600


def test_a_memo_whose_sum_is_none_is_not_believed(planted, state):
    state.digests.write_bytes(state.digests.read_bytes().replace(FALSE.encode(), b"x"))
    assert not planted()


@pytest.mark.parametrize("odd", ["pipe", "hole"])
def test_a_memo_that_is_no_file_is_none(planted, state, odd):
    state.digests.unlink()
    if odd == "pipe":
        os.mkfifo(state.digests)
    else:
        with open(state.digests, "wb") as out:
            out.truncate(1 << 40)
    assert not planted()


@settings(max_examples=50)
@given(json_values | st.fixed_dictionaries({"schema": st.just(1), "files": json_values}))
@example({"schema": 1, "files": {"f": {"stat": 10**4000, "sha256": "", "facts": {}}}})
def test_a_memo_of_any_json_is_read(tmp_path_factory, data):
    top = tmp_path_factory.getbasetemp()
    (top / "digests.json").write_text(json.dumps(data))
    (top / "f").write_bytes(b"first")
    assert len(DigestCache(top / "digests.json", top).sha256(top / "f")) == 64


# Answers that were remembered.


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", DEEP, HUGE, b'{"stamp": 1}', b"\xff"])
def test_a_damaged_answer_is_none(tmp_path, data):
    (tmp_path / "host.json").write_bytes(data)
    assert JsonCache(tmp_path / "host.json").get() == (None, None)


def test_an_answer_in_a_pipe_is_none(tmp_path):
    os.mkfifo(tmp_path / "host.json")
    assert JsonCache(tmp_path / "host.json").get() == (None, None)


# Links where something is written.


@pytest.fixture
def precious(tmp_path_factory):
    """A file that must stay as it is, and a folder with one."""
    folder = tmp_path_factory.mktemp("precious")
    path = folder / "f.engine"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"
    assert [p.name for p in folder.iterdir()] == ["f.engine"]


def test_a_new_file_is_not_written_through_a_link(tmp_path, precious):
    (tmp_path / "f").symlink_to(precious)
    with new_file(tmp_path / "f") as out:
        out.write(b"mine")
    assert (tmp_path / "f").read_bytes() == b"mine"
    assert not (tmp_path / "f").is_symlink()


def test_a_link_is_not_flushed_for_a_file(tmp_path, precious):
    (tmp_path / "f").symlink_to(precious)
    with pytest.raises(OSError):
        sync_file(tmp_path / "f")


def test_a_temporary_that_is_a_link_is_not_written_through(tmp_path, precious, monkeypatch):
    name = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (name.append(a), real(a, b)))
    data = b"new"
    write_atomic(tmp_path / "f", data)
    name[0].symlink_to(precious)  # the same name again: it is known beforehand
    write_atomic(tmp_path / "f", data)
    assert (tmp_path / "f").read_bytes() == b"new"


def publish(state, data=b"engine", before=lambda publication: None):
    engine = state.top / "engines" / NAME
    publication = Publication(state, engine, receipt(data).key)
    before(publication)
    partial = publication.open()
    with open(partial, "wb") as out:
        out.write(data)
    publication.commit(receipt(data), state.receipts)
    publication.finish()
    assert engine.read_bytes() == data
    assert not engine.is_symlink()
    return engine


def test_a_compile_does_not_write_through_a_link_in_its_place(state, precious):
    engine = state.top / "engines" / NAME
    partial = state.partial(engine)
    partial.mkdir(parents=True)
    for suffix in ("engine", "sha256"):
        (partial / f"{receipt().key}.{suffix}").symlink_to(precious)
    (partial / f"probe.{os.getpid()}").symlink_to(precious)
    publish(state)


def test_beside_the_engine_nothing_is_written_through_a_link_either(state, precious, monkeypatch):
    monkeypatch.setattr(Publication, "_can_rename", lambda self: False)
    for place in Publication(state, state.top / "engines" / NAME, receipt().key)._places[1]:
        place.symlink_to(precious)
    publish(state)


def test_an_engine_and_a_sidecar_that_are_links_are_replaced(state, precious):
    engine = state.top / "engines" / NAME
    engine.symlink_to(precious)
    engine.with_name(f"{NAME}.sha256").symlink_to(precious)
    publish(state)


def test_a_sweep_removes_nothing_through_a_link(state, precious):
    """The folder of unfinished engines leads to other people's files."""
    engine = state.top / "engines" / NAME
    partial = state.partial(engine)
    partial.parent.mkdir(parents=True)
    partial.symlink_to(precious.parent)
    Publication(state, engine, receipt().key).sweep()
    partial.unlink(missing_ok=True)
    partial.symlink_to(precious.parent)
    publish(state)


def test_a_sweep_removes_its_own_alone(state):
    engine = state.top / "engines" / NAME
    partial = state.partial(engine)
    partial.mkdir(parents=True)
    mine = [partial / f"{'0' * 64}.engine", partial / "probe.12"]
    others = [partial / "notes.txt", partial / "x.engine"]
    for path in (*mine, *others):
        path.write_bytes(b"")
    Publication(state, engine, receipt().key).open()
    assert [path.exists() for path in mine] == [False, False]
    assert [path.exists() for path in others] == [True, True]


def test_what_waits_behind_a_link_is_not_taken_for_finished(state, precious):
    engine = state.top / "engines" / NAME
    publication = Publication(state, engine, receipt(b"precious").key)
    publication.open().unlink()
    place, sidecar = publication._places[0]
    sidecar.write_text(receipt(b"precious").sha256)
    shutil.copy(precious, place)
    assert publication.pending(receipt(b"precious"))
    place.unlink()
    place.symlink_to(precious)
    assert not publication.pending(receipt(b"precious"))


# Who may write.


@pytest.mark.parametrize(("mode", "told"), [(0o755, False), (0o775, False), (0o777, True), (0o1777, True)])
def test_folders_that_everybody_may_write_are_told(state, mode, told):
    state.root.mkdir()
    state.root.chmod(mode)
    assert state.writable_by_all(state.top / "engines", state.top / "missing") == [state.root] * told
