"""The update tools of Debian, on this host as on a device: Mender, SWUpdate and RAUC.

    apt-get install mender-artifact mender-client swupdate rauc cpio squashfs-tools dbus

RAUC: the path of another rauc than Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import CLEAN, REPO

RAUC = os.environ.get("RAUC", "rauc")


class Device:
    """What lies on the device. engines: its folder of releases."""

    def __init__(self, root: Path) -> None:
        self.root, self.engines, self.bin = root, root / "data", root / "bin"
        self.bin.mkdir(parents=True)
        example = REPO / "docs/examples/updates"
        shutil.copy(example / "device/switch-engines", self.bin)
        (root / "modules").mkdir()
        shutil.copy(example / "mender/engines", root / "modules")
        self.verifier = root / "verifier"  # a folder in place of the zip file
        self.verifier.mkdir()
        (self.verifier / "__main__.py").write_text(
            f"import sys\nsys.path.insert(0, {str(REPO / 'site_scons')!r})\n"
            "from scons_tensorrt.cli import run\nrun()\n"
        )

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (self.bin, Path(sys.executable).parent, CLEAN["PATH"])))
        env = {
            **CLEAN,
            "PATH": path,
            "ENGINES": str(self.engines),
            "VERIFIER": str(self.verifier),
            **environment,
        }
        return subprocess.run(
            list(map(str, command)),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            timeout=120,
            check=False,
        )

    def install(self, release: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("switch-engines", "install", release, **environment)

    def verify_read_only(self, release: Path) -> subprocess.CompletedProcess[str]:
        """Verify a release in a read-only mount, with the standard library alone."""
        mount = (
            f"mount --bind {release} {release} && mount -o remount,bind,ro {release} && ! touch {release}/x"
        )
        verify = f"exec python3 -S {self.verifier} verify --manifest {release}/manifest.json"
        return self.run("unshare", "--mount", "sh", "-c", f"{mount} 2> /dev/null && {verify}")

    def links(self) -> dict[str, str]:
        """What each link names."""
        return {path.name: os.readlink(path) for path in self.engines.iterdir() if path.is_symlink()}

    def slots(self) -> list[str]:
        return sorted(p.name for p in self.engines.iterdir() if p.is_dir() and not p.is_symlink())


class Mender:
    """The artifact by mender-artifact, installed by mender with the update module."""

    bundle = "build/engines.mender"
    programs = ("mender-artifact", "mender", "unshare")
    packages = "mender-artifact mender-client"
    tampered = "invalid checksum"  # what it says of one

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        key = keys / "mender.key"
        openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key)
        openssl("ec", "-in", key, "-pubout", "-out", keys / "mender.pub")

    def accepts(self, device: Device, bundle: Path) -> bool:
        return (
            device.run("mender-artifact", "validate", "-k", self.keys / "mender.pub", bundle).returncode == 0
        )

    def unpack(self, device: Device, bundle: Path, folder: Path) -> Path:
        folder.mkdir()
        done = device.run("mender-artifact", "dump", "--files", folder, bundle)
        assert done.returncode == 0, done.stdout
        return folder

    def install(self, device: Device, bundle: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.client(device, "install", bundle, **environment)

    def client(
        self, device: Device, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """The client, with a module and a configuration of this device at their fixed places."""
        etc = device.root / "etc"
        if not etc.exists():
            etc.mkdir()
            (device.root / "mender").mkdir()
            (etc / "artifact_info").write_text("artifact_name=factory\n")
            (etc / "device_type").write_text("device_type=drone\n")
            (etc / "mender.conf").write_text(
                f'{{"ArtifactVerifyKey": "{self.keys}/mender.pub", "DeviceTypeFile": "{etc}/device_type"}}'
            )
        modules = f"mount --bind {device.root}/modules /usr/share/mender/modules/v3"
        mounts = f"{modules} && mount --bind {etc} /etc/mender"
        client = f'exec mender --no-syslog --data {device.root}/mender "$@"'
        return device.run(
            "unshare", "--mount", "sh", "-c", f"{mounts} && {client}", "sh", *arguments, **environment
        )


class SwUpdate:
    bundle = "build/engines.swu"
    programs = ("swupdate", "cpio")
    packages = "swupdate cpio"
    tampered = "HASH mismatch"

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        certificate(keys / "swupdate", "-addext", "extendedKeyUsage=emailProtection")

    def _swupdate(self, device: Device, *arguments: str | Path, **environment: str):
        key = ("-k", self.keys / "swupdate.crt", "-H", "drone:1")
        return device.run("swupdate", *key, *arguments, **environment)

    def accepts(self, device: Device, bundle: Path) -> bool:
        return self._swupdate(device, "--dry-run", "-i", bundle).returncode == 0

    def unpack(self, device: Device, bundle: Path, folder: Path) -> Path:
        folder.mkdir()
        done = device.run("sh", "-c", f"cd {folder} && cpio --quiet -i < {bundle}")
        assert done.returncode == 0, done.stdout
        for name in ("sw-description", "sw-description.sig", "install-engines"):
            (folder / name).unlink()
        return folder

    def install(self, device: Device, bundle: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._swupdate(device, "-v", "-i", bundle, **environment)


class Rauc:
    bundle = "build/engines.raucb"
    programs = (RAUC, "mksquashfs", "dbus-run-session")
    packages = "rauc squashfs-tools dbus"
    tampered = "signature verification failed"

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        certificate(keys / "rauc")

    def accepts(self, device: Device, bundle: Path) -> bool:
        return device.run(RAUC, "info", "--keyring", self.keys / "rauc.crt", bundle).returncode == 0

    def unpack(self, device: Device, bundle: Path, folder: Path) -> Path:
        self.extract(device, bundle, folder)
        (folder / "release").mkdir()
        done = device.run("tar", "-C", folder / "release", "-xf", folder / "release.tar")
        assert done.returncode == 0, done.stdout
        return folder / "release"

    def extract(self, device: Device, bundle: Path, folder: Path) -> None:
        done = device.run(RAUC, "extract", "--keyring", self.keys / "rauc.crt", bundle, folder)
        assert done.returncode == 0, done.stdout

    def install(self, device: Device, bundle: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """By RAUC's service, on a bus of its own."""
        (device.root / "mounts").mkdir(exist_ok=True)
        (device.root / "rootfs").touch()
        config = device.root / "system.conf"
        config.write_text(
            f"[system]\ncompatible=drone\nbootloader=noop\nstatusfile={device.root}/status\n"
            f"mountprefix={device.root}/mounts\n"
            f"[keyring]\npath={self.keys}/rauc.crt\n"
            f"[slot.rootfs.0]\ndevice={device.root}/rootfs\ntype=raw\nbootname=system0\n"
        )
        script = f"""
            export DBUS_STARTER_BUS_TYPE=session
            {RAUC} --conf={config} --override-boot-slot=system0 service & service=$!
            for _ in $(seq 100); do {RAUC} status > /dev/null 2>&1 && break; sleep 0.05; done
            status=0; {RAUC} install {bundle} || status=$?
            kill $service; wait $service; exit $status
        """
        return device.run("dbus-run-session", "--", "sh", "-c", script, **environment)


TOOLS = {"mender": Mender, "swupdate": SwUpdate, "rauc": Rauc}


def skip_without(tool: type[Mender] | type[SwUpdate] | type[Rauc]) -> None:
    if not all(map(shutil.which, tool.programs)):
        pytest.skip(f"apt-get install {tool.packages}")
    if os.geteuid() != 0:
        pytest.skip("an update is installed as root")
    if tool is Rauc and not can_mount():
        pytest.skip("no loop mounts here")


def can_mount() -> bool:
    """Whether this host mounts a squashfs."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "content").mkdir()
        make = f"mksquashfs {folder}/content {folder}/image -quiet -no-progress"
        mount = f"mount -o loop,ro {folder}/image {folder}/content && umount {folder}/content"
        return (
            subprocess.run(f"{make} && {mount}", shell=True, capture_output=True, check=False).returncode == 0
        )


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certificate(stem: Path, *more: str) -> None:
    """A key and a certificate that it signed itself: stem.key, stem.crt."""
    new = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    )
    openssl(*new, "-subj", "/CN=engines", "-keyout", f"{stem}.key", "-out", f"{stem}.crt", *more)
