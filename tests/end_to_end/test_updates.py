"""Engines as updates of their own: docs/examples/updates, with Debian's tools where they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from update_tools import RAUC, TOOLS, Device, Mender, Rauc, skip_without

from conftest import REPO, Tree, flip_last_bit
from scons_tensorrt.files.signing_keys import generate

EXAMPLE = REPO / "docs/examples/updates"


class Site:
    """The example with its model and keys, and a device."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(EXAMPLE, root / "repo")
        self.tree = Tree.at(root / "repo", {})
        write_model(self.tree.path("models/pitch.onnx"))
        self.keys = self.tree.path("keys")
        self.keys.mkdir()
        self.device = Device(root / "device")
        for name in ("release", "stranger"):
            private, public, _ = generate()
            (self.keys / f"{name}.pem").write_bytes(private)
            (self.keys / f"{name}.pem.pub").write_bytes(public)
        self.scons("install")
        self.release = self.tree.path("build/release")
        done = self.device.install(self.release)
        assert (done.returncode, self.device.links()) == (0, {"current": "a"}), done.stdout
        self.first = self.device.engines.rename(root / "first")
        self._made: dict[str, tuple] = {}

    def scons(self, *targets: str) -> str:
        settings = ("SIGNING_KEY=keys/release.pem", f"ENGINES={self.device.engines}", "RAUC_FORMAT=plain")
        run = self.tree.scons("-Q", *settings, *targets)
        assert run.status == 0, run.out
        return run.out

    def tool(self, name: str):
        """A tool, and the bundle that the example makes for it."""
        if name not in self._made:
            skip_without(TOOLS[name])
            tool = TOOLS[name](self.keys)
            self.scons(name)
            self._made[name] = tool, self.tree.path(tool.bundle)
        return self._made[name]


def write_model(path: Path) -> None:
    """A network with the input of the example."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((256, 256), np.float32) / 256, "w")
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["audio"], ["m"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["m", "w"], ["y"]),
        ],
        "pitch",
        [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [1, "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("updates"))


@pytest.fixture
def site(made: Site) -> Site:
    """With a release on the device, in a."""
    shutil.rmtree(made.device.engines, ignore_errors=True)
    shutil.copytree(made.first, made.device.engines, symlinks=True)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TOOL = pytest.mark.parametrize("name", TOOLS)


@TOOL
def test_an_update_is_read_and_installed_by_its_tool(name: str, site: Site, tmp_path: Path) -> None:
    tool, bundle = site.tool(name)
    device = site.device
    assert tool.accepts(device, bundle)
    unpacked = tool.unpack(device, bundle, tmp_path / "unpacked")
    assert contents(unpacked) == contents(site.release)
    assert device.verify_read_only(unpacked).stdout.count("OK ") == 2
    done = tool.install(device, bundle, TRUSTED=str(site.keys / "release.pem.pub"))
    assert done.returncode == 0, done.stdout
    assert device.links() == {"current": "b", "previous": "a"}
    assert contents(device.engines / "current") == contents(site.release)
    assert not (device.engines / "incoming").exists()
    assert f"`{name}' is up to date" in site.scons(name)


@TOOL
def test_an_update_that_verify_refuses_leaves_the_old_engines(name: str, site: Site) -> None:
    tool, bundle = site.tool(name)
    done = tool.install(site.device, bundle, TRUSTED=str(site.keys / "stranger.pem.pub"))
    assert done.returncode != 0
    assert "is refused (status 16); the engines in use stay: a" in done.stdout
    assert (site.device.links(), site.device.slots()) == ({"current": "a"}, ["a"])


def flip_byte_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@TOOL
def test_a_tampered_update_is_refused_by_its_tool(name: str, site: Site, tmp_path: Path) -> None:
    tool, bundle = site.tool(name)
    tampered = tmp_path / bundle.name
    shutil.copy(bundle, tampered)
    flip_byte_in_the_middle(tampered)
    assert not tool.accepts(site.device, tampered)
    done = tool.install(site.device, tampered)
    assert done.returncode != 0
    assert tool.tampered in done.stdout
    assert site.device.links() == {"current": "a"}


@pytest.mark.slow
def test_mender_goes_back_to_the_engines_before(site: Site) -> None:
    tool, bundle = site.tool("mender")
    assert isinstance(tool, Mender)
    assert tool.install(site.device, bundle).returncode == 0
    assert site.device.links()["current"] == "b"
    assert tool.client(site.device, "rollback").returncode == 0
    assert site.device.links() == {"current": "a"}


@pytest.mark.slow
def test_sw_description_has_the_sha256_of_the_manifest(site: Site) -> None:
    site.scons("build/swupdate/sw-description")
    text = site.tree.path("build/swupdate/sw-description").read_text()
    stated = dict(re.findall(r'filename = "(.*?)"; (?:path|type) = .*?sha256 = "([0-9a-f]{64})"', text))
    manifest = json.loads((site.release / "manifest.json").read_bytes())
    assert {each["name"]: each["sha256"] for each in manifest["engines"]}.items() <= stated.items()
    assert {*stated} == {*contents(site.release), "install-engines"}


@pytest.mark.slow
def test_rauc_reads_a_verity_bundle_and_refuses_a_tampered_one(site: Site, tmp_path: Path) -> None:
    """It is not installed: that needs dm-verity."""
    tool, bundle = site.tool("rauc")
    assert isinstance(tool, Rauc)
    try:
        site.scons("rauc", "RAUC_FORMAT=verity")
        assert tool.accepts(site.device, bundle)
        assert contents(tool.unpack(site.device, bundle, tmp_path / "unpacked")) == contents(site.release)
        flip_byte_in_the_middle(bundle)
        done = site.device.run(
            RAUC, "extract", "--keyring", tool.keys / "rauc.crt", bundle, tmp_path / "tampered"
        )
        assert done.returncode != 0
        assert "is corrupted" in done.stdout
    finally:
        bundle.unlink()
        site.scons("rauc")


@pytest.mark.slow
def test_rauc_1_13_makes_a_bundle_for_an_artifact_repository(site: Site, tmp_path: Path) -> None:
    """RAUC names one: Debian 12 has 1.8."""
    said = site.device.run(RAUC, "--version").stdout if shutil.which(RAUC) else "rauc 0.0"
    if [int(part) for part in re.findall(r"\d+", said)[:2]] < [1, 13]:
        pytest.skip("needs RAUC 1.13 or later: RAUC=path of its rauc")
    tool, _ = site.tool("rauc")
    assert isinstance(tool, Rauc)
    site.scons("rauc-artifacts", f"RAUC={RAUC}")
    bundle = site.tree.path("build/engines-artifact.raucb")
    assert tool.accepts(site.device, bundle)
    tool.extract(site.device, bundle, tmp_path / "unpacked")
    assert contents(tmp_path / "unpacked/release.tar.extracted") == contents(site.release)
    assert check_engines(site, tmp_path / "unpacked").returncode == 0


@pytest.mark.parametrize(("how", "status"), [("", 0), ("changed engine", 13), ("another manifest", 14)])
def test_the_hook_of_an_artifact_repository_refuses_what_verify_refuses(
    how, status, site: Site, tmp_path
) -> None:
    """RAUC installs nothing if it ends with 10 or more."""
    shutil.copytree(site.release, tmp_path / "release.tar.extracted")
    shutil.copy(EXAMPLE / "rauc_artifacts/check-engines", tmp_path)
    spoil(tmp_path / "release.tar.extracted", how)
    done = check_engines(site, tmp_path)
    assert (done.returncode, done.stdout.count("REFUSED ")) == (status, int(bool(how))), done.stdout
    done = check_engines(site, tmp_path, RAUC_SYSTEM_COMPATIBLE="boat")
    assert (done.returncode, done.stdout) == (10, "for drone; this is boat\n")


def check_engines(site: Site, bundle: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    names = {"RAUC_MF_COMPATIBLE": "drone", "RAUC_SYSTEM_COMPATIBLE": "drone", **environment}
    return site.device.run(bundle / "check-engines", "install-check", **names)


# The script of the device, without a tool.


def spoil(release: Path, how: str) -> None:
    engine = next(release.glob("*.engine"))
    if how == "changed engine":
        flip_last_bit(engine)
    elif how == "missing sidecar":
        Path(f"{engine}.sha256").unlink()
    elif how == "another manifest":
        (release / "manifest.json").write_text((release / "manifest.json").read_text() + " ")
    elif how == "further file":
        (release / "further").touch()


@pytest.mark.parametrize(
    ("how", "status"),
    [("changed engine", 13), ("missing sidecar", 12), ("another manifest", 14), ("further file", 17)],
)
def test_a_release_that_is_refused_is_removed(how: str, status: int, site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.release, tmp_path / "new")
    spoil(tmp_path / "new", how)
    done = site.device.install(tmp_path / "new")
    assert done.returncode == status, done.stdout
    last = f"switch-engines: {tmp_path}/new is refused (status {status}); the engines in use stay: a"
    assert done.stdout.splitlines()[-1] == last
    assert (site.device.links(), site.device.slots()) == ({"current": "a"}, ["a"])
    assert site.device.run("switch-engines", "rollback").returncode == 0  # as Mender calls it then
    assert site.device.links() == {"current": "a"}


def test_releases_take_turns_and_one_step_back_is_possible(site: Site) -> None:
    device = site.device
    for current, previous in (("b", "a"), ("a", "b")):
        assert device.install(site.release).returncode == 0
        assert device.links() == {"current": current, "previous": previous}
    for _ in range(2):  # the second has nothing to do
        assert device.run("switch-engines", "rollback").returncode == 0
        assert (device.links(), device.slots()) == ({"current": "b"}, ["a", "b"])


def test_a_device_that_stops_in_an_install_keeps_its_engines(site: Site) -> None:
    """Killed after the copy, before it is verified."""
    device, stop = site.device, site.device.root / "stop.py"
    stop.write_text("import os\nos.kill(os.getppid(), 9)\n")
    assert device.install(site.release, VERIFIER=str(stop)).returncode == -9
    assert device.links() == {"current": "a"}
    assert device.install(site.release).returncode == 0
    assert device.links() == {"current": "b", "previous": "a"}
