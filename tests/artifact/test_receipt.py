"""Receipts: what an engine was made from, in files named by their key."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.artifact import receipt as module
from scons_tensorrt.artifact.cache_key import make_key
from scons_tensorrt.artifact.receipt import Receipt, ReceiptFolder
from scons_tensorrt.errors import ReceiptError
from scons_tensorrt.files.digest_cache import FINE_TICK_NS, DigestCache

NAME = "a__sm87_jp6.2_trt10.3_fp16.engine"
SHA = "0123456789abcdef" * 4
RESERVED = {"schema", "engine", "key", "sha256", "size", "ingredients"}

text = st.text(max_size=20)
ingredient_maps = st.dictionaries(text, text, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
detail_maps = st.dictionaries(text.filter(lambda name: name not in RESERVED), json_values, max_size=4)


def receipt(ingredients=None, sha256=SHA, size=7, details=None, filename=NAME):
    ingredients = {"option precision": "fp16"} if ingredients is None else ingredients
    return Receipt(filename, make_key(filename, ingredients), sha256, size, ingredients, details or {})


def damaged(**changes):
    fields = json.loads(receipt().dump())
    for name, value in changes.items():
        if value is None:
            del fields[name]
        else:
            fields[name] = value
    return json.dumps(fields).encode()


@given(ingredient_maps, st.integers(0, 1 << 50), detail_maps)
def test_load_gives_back_what_dump_wrote(ingredients, size, details):
    one = receipt(ingredients, size=size, details=details)
    assert Receipt.load(one.dump()) == one


@given(ingredient_maps, detail_maps)
def test_a_loaded_receipt_is_written_with_the_same_bytes(ingredients, details):
    data = receipt(ingredients, details=details).dump()
    assert Receipt.load(data).dump() == data


def test_a_receipt_can_name_files_that_are_not_unicode():
    one = receipt({"input data " + os.fsdecode(b"w\xff.bin"): SHA})
    assert Receipt.load(one.dump()) == one


def test_a_receipt_is_json_with_schema_and_a_last_newline():
    data = receipt().dump()
    assert json.loads(data)["schema"] == 1
    assert data.endswith(b"}\n")


def test_fields_of_a_later_version_are_ignored_and_kept():
    assert Receipt.load(damaged(colour="green")).details == {"colour": "green"}


@given(ingredient_maps, st.data())
def test_the_key_does_not_depend_on_the_order_of_ingredients(ingredients, data):
    turned = dict(data.draw(st.permutations(list(ingredients.items()))))
    assert make_key(NAME, turned) == make_key(NAME, ingredients)


@given(ingredient_maps, ingredient_maps)
def test_different_ingredients_have_different_keys(one, other):
    assert (make_key(NAME, one) == make_key(NAME, other)) is (one == other)


def test_the_filename_is_part_of_the_key():
    assert make_key(NAME, {}) != make_key("b" + NAME, {})


def test_a_key_is_64_hex_characters_and_stays_what_it_is():
    assert make_key(NAME, {"option precision": "fp16", "input onnx": SHA}) == (
        "58aa52ec7be72842b53af7b45b2bd7816c39b1b6b25f9d8be18023c0bc861916"
    )


DAMAGED = [
    b"",  # empty
    receipt().dump()[:-10],  # cut off
    b"\0" * 100,  # zeros, as a power cut leaves them
    b"\xff\xfe\xfd",  # not text
    b"null",  # not an object
    b"[]",  # not an object
    b'"receipt"',  # not an object
    b"[" * 100_000,  # nested past what Python's parser takes
    damaged(schema=2),  # of a later version
    damaged(schema=None),  # of none
    damaged(key=None),  # no key
    damaged(key="0" * 64),  # another's key
    damaged(engine=None),  # of no engine
    damaged(engine="b" + NAME),  # of another engine
    damaged(ingredients=None),  # nothing it was made from
    damaged(ingredients=[]),  # not a map
    damaged(ingredients={"option precision": "fp32"}),  # one was edited
    damaged(ingredients={"option precision": 16}),  # not text
    damaged(sha256=None),  # no sum
    damaged(sha256=SHA[:-1]),  # too short
    damaged(sha256=5),  # not text
    damaged(size=None),  # no size
    damaged(size="7"),  # not a number
    damaged(size=7.0),  # not a whole number
]


@pytest.mark.parametrize("data", DAMAGED, ids=[repr(d[-40:]) for d in DAMAGED])
def test_a_damaged_receipt_is_refused(data):
    with pytest.raises(ReceiptError):
        Receipt.load(data)


@given(st.binary(max_size=100), st.integers(0, 400), st.integers(0, 400))
def test_a_receipt_with_any_bytes_in_it_loads_or_is_refused(patch, start, end):
    data = receipt().dump()
    try:
        loaded = Receipt.load(data[:start] + patch + data[end:])
    except ReceiptError:
        return
    assert loaded.key == make_key(loaded.filename, loaded.ingredients)


@pytest.fixture
def book(tmp_path):
    return ReceiptFolder(tmp_path / "receipts")


def age(book, receipt, seconds):
    os.utime(book.path(receipt), (1e9 - seconds, 1e9 - seconds))


def test_a_receipt_that_was_put_is_got(book):
    book.put(receipt())
    assert book.of_key(NAME, receipt().key) == [receipt()]


def test_a_receipt_that_was_never_put_is_not_there(book):
    assert book.of_key(NAME, receipt().key) == []
    assert not book.knows(NAME, receipt().key)


def test_a_receipt_is_a_file_named_by_its_key_in_a_folder_of_its_engine(book, tmp_path):
    book.put(receipt())
    folder = tmp_path / "receipts" / "a__sm87_jp6.2_trt10.3_fp16"
    (file,) = folder.iterdir()
    assert file.name.startswith(receipt().key)
    assert file.suffix == ".json"


def test_another_keys_receipt_is_not_overwritten(book):
    old, new = receipt({"input onnx": "1"}), receipt({"input onnx": "2"})
    book.put(old)
    book.put(new)
    assert (book.of_key(NAME, old.key), book.of_key(NAME, new.key)) == ([old], [new])


def test_another_result_of_the_same_key_is_not_overwritten(book):
    one, other = receipt(sha256=SHA), receipt(sha256=SHA[::-1])
    book.put(one)
    book.put(other)
    age(book, one, 5)
    assert book.of_key(NAME, one.key) == [other, one]


def test_the_same_result_of_the_same_key_is_one_receipt(book):
    book.put(receipt(details={"started": "yesterday"}))
    book.put(receipt(details={"started": "today"}))
    assert [r.details["started"] for r in book.of_key(NAME, receipt().key)] == ["today"]


def test_a_damaged_receipt_is_not_read_but_known(book):
    book.put(receipt())
    book.path(receipt()).write_bytes(b"{")
    assert book.of_key(NAME, receipt().key) == []
    assert book.knows(NAME, receipt().key)


def test_a_receipt_under_another_key_is_not_that_keys(book):
    book.put(receipt())
    wrong = book.path(receipt()).with_name(f"{'0' * 64}.{SHA[:16]}.json")
    wrong.write_bytes(receipt().dump())
    assert book.of_key(NAME, "0" * 64) == []


def test_a_key_that_begins_another_is_not_known_by_it(book):
    book.put(receipt())
    assert not book.knows(NAME, receipt().key[:-1])
    assert book.of_key(NAME, receipt().key[:-1]) == []


def test_a_receipt_in_another_engines_folder_is_not_that_engines(book):
    other = "b" + NAME
    path = book.path(receipt(filename=other)).with_name(book.path(receipt()).name)
    path.parent.mkdir(parents=True)
    path.write_bytes(receipt().dump())
    assert book.of_key(other, receipt().key) == []
    assert list(book.of_file(other)) == []


def test_all_receipts_of_an_engine_come_newest_first(book):
    three = [receipt({"input onnx": text}) for text in "abc"]
    for seconds, one in enumerate(three):
        book.put(one)
        age(book, one, seconds)
    assert list(book.of_file(NAME)) == three


def test_a_receipt_that_is_written_again_is_the_newest_and_the_same_file(book):
    first, second = receipt({"input onnx": "a"}), receipt({"input onnx": "b"})
    for seconds, one in enumerate((first, second)):
        book.put(one)
        age(book, one, 9 - seconds)
    inode = book.path(first).stat().st_ino
    book.put(first)
    assert list(book.of_file(NAME)) == [first, second]
    assert book.path(first).stat().st_ino == inode


def test_a_damaged_receipt_does_not_hide_the_others(book):
    bad = receipt({"input onnx": "x"})
    book.put(receipt())
    book.put(bad)
    book.path(bad).write_bytes(b"{")
    assert list(book.of_file(NAME)) == [receipt()]


def test_a_half_written_temporary_is_no_receipt(book):
    book.put(receipt())
    path = book.path(receipt())
    path.with_name(f".{path.name}.123.tmp").write_bytes(receipt({"input onnx": "x"}).dump())
    assert list(book.of_file(NAME)) == [receipt()]


def test_an_engine_never_made_has_no_receipts(book):
    assert list(book.of_file(NAME)) == []


def test_a_book_that_cannot_be_written_is_an_os_error(tmp_path):
    (tmp_path / "receipts").write_bytes(b"")
    with pytest.raises(OSError):
        ReceiptFolder(tmp_path / "receipts").put(receipt())


class Shelf:
    """A book with one receipt, out of the racy window, that a saved memo knows."""

    def __init__(self, top):
        self.top = top
        self.book = ReceiptFolder(top / "receipts")
        self.book.put(receipt())
        self.path = self.book.path(receipt())
        time.sleep(1.3 * FINE_TICK_NS / 1e9)
        digest_cache = self.digest_cache()
        assert self.find_verified(digest_cache)
        digest_cache.save()

    def digest_cache(self, full=False):
        return DigestCache(self.top / "digests.json", self.top, full)

    def find_verified(self, digest_cache=None, key=None, sha256=SHA, size=7):
        return self.book.find_verified(
            NAME, key or receipt().key, sha256, digest_cache or self.digest_cache()
        ) == (
            size,
            None,
            None,
        )


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def test_a_receipt_that_was_left_alone_is_not_read_again(shelf, monkeypatch):
    monkeypatch.setattr(module, "_read", None)
    assert shelf.find_verified()
    assert shelf.find_verified(shelf.digest_cache(full=True))


def test_a_receipt_vouches_for_its_own_key_and_bytes_alone(shelf):
    other = SHA[:16] + "f" * 48  # the same file
    assert not shelf.find_verified(sha256=other)
    assert not shelf.find_verified(size=8)
    assert not shelf.find_verified(key="0" * 64)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        damaged(sha256=SHA[:16] + "f" * 48),
        damaged(size=8),
        damaged(key="0" * 64),
        damaged(ingredients={}),
        receipt(filename="b" + NAME[1:]).dump(),
        receipt({"option precision": "fp32"}).dump(),
        b"",
        None,
    ],
)
def test_a_receipt_that_was_changed_since_vouches_for_nothing(shelf, data, full):
    before = shelf.path.stat()
    if data is None:
        shelf.path.unlink()
    else:
        shelf.path.write_bytes(data)
        os.utime(shelf.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not shelf.find_verified(shelf.digest_cache(full))


@pytest.mark.parametrize("fact", [None, True, 7, "x", [], [SHA], {"sha256": SHA}])
def test_a_damaged_memo_vouches_for_nothing(shelf, fact):
    saved = json.loads((shelf.top / "digests.json").read_text())
    for entry in saved["files"].values():
        entry["facts"] = dict.fromkeys(entry["facts"], fact)
    (shelf.top / "digests.json").write_text(json.dumps(saved))
    assert not shelf.find_verified()


def test_a_receipt_that_is_there_and_cannot_be_read_is_not_none(book, monkeypatch):
    """A failing disk: taken for none, the finished compile would be swept and made again."""
    book.put(receipt())

    def fail(path, most):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(module, "read_small", fail)
    with pytest.raises(ReceiptError, match=r"\.json: Input/output error; make it readable, or"):
        book.of_key(NAME, receipt().key)


def test_a_folder_of_receipts_that_cannot_be_listed_is_not_empty(book, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(ReceiptError, match="Input/output error"):
        book.knows(NAME, receipt().key)


def counted(monkeypatch):
    """The paths of the receipts that are read from now on."""
    found, read = [], module.read_small
    monkeypatch.setattr(module, "read_small", lambda path, *rest: [found.append(path), read(path, *rest)][1])
    return found


def test_models_with_the_same_inputs_are_found_and_each_receipt_is_read_once(book, monkeypatch):
    kind = NAME.partition("__")[2]
    names = [f"m{number:02}__{kind}" for number in range(20)]
    for number, name in enumerate(names):
        book.put(receipt({"input onnx": str(number // 2)}, filename=name))
    fresh, read = ReceiptFolder(book.path(receipt()).parent.parent), counted(monkeypatch)
    for number, name in enumerate(names):
        assert fresh.same_inputs(name, {"input onnx": str(number // 2)}) == [names[number ^ 1]]
    assert len(read) == 20


def test_a_receipt_that_this_run_writes_is_found_by_its_inputs(book):
    other = "b" + NAME
    assert book.same_inputs(NAME, {"input onnx": "1"}) == []
    book.put(receipt({"input onnx": "1"}, filename=other))
    assert book.same_inputs(NAME, {"input onnx": "1"}) == [other]
    assert book.same_inputs(NAME, {"input onnx": "2"}) == book.same_inputs(other, {"input onnx": "1"}) == []


def test_other_hardware_damage_and_former_fields_do_not_hide_the_same_inputs(book):
    inputs = {"hardware product": "tensorrt_rtx", "input onnx": "1"}
    book.put(receipt(inputs, filename="a" + NAME.replace("sm87", "sm86")))
    book.put(receipt({**inputs, "hardware machine": "x86_64"}, filename="b" + NAME))
    for number, data in enumerate((b"", b"[]", b'{"ingredients": 1}', b'{"ingredients": {"a": ')):
        book.path(receipt(filename="b" + NAME)).with_name(f"{number}.json").write_bytes(data)
    assert book.same_inputs(NAME, inputs) == ["b" + NAME]
