"""Where things are installed, and that a copy is proven while it is made."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from handing import A, sha

from scons_tensorrt.errors import HandoffError
from scons_tensorrt.release import install_files as module
from scons_tensorrt.release.install_files import install_bytes, install_engine
from scons_tensorrt.scons_tool.install_engines import installed_path

pytest_plugins = ["handing"]

YOCTO = {"install_root": "/image/usr", "PREFIX": "/usr", "prefix": "/usr", "MAXLINELENGTH": "2097152"}
PLACES = [
    ("share/e", {}, "/usr/local/share/e"),
    ("share/e", {"PREFIX": "/usr"}, "/usr/share/e"),
    ("share/e", {"prefix": "/usr"}, "/usr/share/e"),
    ("share/e", {"PREFIX": "out"}, "out/share/e"),
    ("share/e", {"DESTDIR": "/target"}, "/target/usr/local/share/e"),
    ("share/e", {"DESTDIR": "/target/", "PREFIX": "/usr"}, "/target/usr/share/e"),
    ("share/e", YOCTO, "/image/usr/share/e"),
    ("share/e", {**YOCTO, "DESTDIR": "/elsewhere"}, "/image/usr/share/e"),
    ("/opt/e", {}, "/opt/e"),
    ("/opt/e", {"PREFIX": "/usr"}, "/opt/e"),
    ("/opt/e", {"DESTDIR": "/target", "PREFIX": "/usr"}, "/target/opt/e"),
    ("/opt/e", YOCTO, "/image/opt/e"),
    ("/opt/e", {**YOCTO, "DESTDIR": "/image"}, "/image/opt/e"),
    ("/opt/e", {"install_root": "/usr", "prefix": "/usr"}, "/opt/e"),
]


@pytest.mark.parametrize(("folder", "arguments", "spec"), PLACES)
def test_where_a_folder_is_installed(folder: str, arguments: dict, spec: str) -> None:
    assert installed_path(folder, arguments) == spec


@pytest.mark.parametrize(
    ("folder", "arguments", "why"),
    [
        ("", {}, "use a folder"),
        ("../etc", {"DESTDIR": "/t"}, "inside the installation prefix"),
        ("share/../../etc", {}, "inside the installation prefix"),
        ("x", {"PREFIX": "/usr", "prefix": "/opt"}, "differ"),
        ("/opt/e", {"install_root": "/image", "prefix": "/usr"}, "set DESTDIR="),
    ],
)
def test_a_place_that_cannot_be_told_is_refused(folder: str, arguments: dict, why: str) -> None:
    with pytest.raises(HandoffError, match=why):
        installed_path(folder, arguments)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / A
    path.write_bytes(b"engine" * 1_000_000)
    return path


def test_a_copy_has_its_sidecar_and_the_mode_of_a_package(engine: Path, tmp_path: Path) -> None:
    target = tmp_path / "image" / A
    before = os.umask(0o077)
    try:
        install_engine(engine, target, sha(engine.read_bytes()))
    finally:
        os.umask(before)
    assert target.read_bytes() == engine.read_bytes()
    assert Path(f"{target}.sha256").read_text() == sha(engine.read_bytes())
    assert {path.stat().st_mode & 0o777 for path in target.parent.iterdir()} == {0o644}
    assert len(list(target.parent.iterdir())) == 2


def test_other_bytes_than_those_promised_leave_what_stood_there(engine: Path, tmp_path: Path) -> None:
    target = tmp_path / "image" / A
    install_engine(engine, target, sha(engine.read_bytes()))
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    engine.write_bytes(b"tampered")
    with pytest.raises(HandoffError, match="changed while it was installed"):
        install_engine(engine, target, sha(b"promised"))
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == before


def test_a_source_that_is_a_link_is_not_followed(engine: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(engine)
    with pytest.raises(OSError, match="symbolic link"):
        install_engine(link, tmp_path / "image" / A, sha(engine.read_bytes()))


def test_nothing_is_written_through_a_link_at_the_destination(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "target").symlink_to(victim)
    install_bytes(tmp_path / "target", b"ours")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "target").is_symlink()


def test_what_a_killed_installation_left_goes_after_a_day(engine: Path, tmp_path: Path) -> None:
    target = tmp_path / "image" / A
    target.parent.mkdir()
    young, old = (
        f".{A}.99999999.tmp",
        f".{A}.sha256.99999998.tmp",
    )  # young: another container's, no such pid here
    for name in (young, old):
        (target.parent / name).write_bytes(b"half")
    os.utime(target.parent / old, (0, 0))
    install_engine(engine, target, sha(engine.read_bytes()))
    assert sorted(path.name for path in target.parent.iterdir()) == [young, A, A + ".sha256"]


def test_two_installations_with_one_process_id_do_not_share_a_temporary(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = tmp_path / "image" / A, tmp_path / "other"
    other.write_bytes(b"other" * 100_000)
    real = module.blocks

    def read_and_install_the_other(source: io.BufferedReader):
        monkeypatch.setattr(module, "blocks", real)
        install_engine(other, target, sha(other.read_bytes()))
        yield from real(source)

    monkeypatch.setattr(module, "blocks", read_and_install_the_other)
    install_engine(engine, target, sha(engine.read_bytes()))
    assert target.read_bytes() == engine.read_bytes()
    assert Path(f"{target}.sha256").read_text() == sha(engine.read_bytes())
    assert len(list(target.parent.iterdir())) == 2


def test_a_source_that_grows_without_end_is_copied_no_further_than_its_size(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Growing(io.FileIO):
        reads = 0

        def read(self, size: int = -1) -> bytes:
            Growing.reads += 1
            assert Growing.reads < 20, "copied for ever"
            with open(engine, "ab") as more:
                more.write(b"x" * (1 << 20))
            return super().read(size)

        def readinto(self, buffer) -> int:
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    monkeypatch.setattr(module, "open_file", lambda path, follow: Growing(path))
    with pytest.raises(HandoffError, match="changed while it was installed"):
        install_engine(engine, tmp_path / "out" / A, sha(engine.read_bytes()))
    assert list((tmp_path / "out").iterdir()) == []
