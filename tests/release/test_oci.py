"""A release as an OCI artifact: pushed to a real registry, read back by skopeo, pulled and verified.

The registry and skopeo are Debian's: apt-get install docker-registry skopeo."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from handing import A, B, Handoff, plan, rtx_plan, sha
from oci_registry import OciRegistry

from conftest import CLEAN, REPO
from scons_tensorrt.cli import main
from scons_tensorrt.errors import HandoffError
from scons_tensorrt.files.signing_keys import load_signing_key
from scons_tensorrt.recipe.model_card import parse_model_card
from scons_tensorrt.release import boms_of
from scons_tensorrt.release.bom import cyclonedx, spdx
from scons_tensorrt.release.bom.bill import ENGINE, Bom, Part, Tool
from scons_tensorrt.release.model_signature import sign_model, statement
from scons_tensorrt.release.oci_artifact import ARTIFACT, Reference, files_in, make_artifact
from scons_tensorrt.release.oci_registry import CHUNKED, Registry
from scons_tensorrt.release.verify_release import Status, read_manifest

pytest_plugins = ["handing"]
NAME = "drone/engines:1.4"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    made = OciRegistry(tmp_path_factory.mktemp("oci") / "registry")
    yield made
    made.close()


@pytest.fixture
def repository(server: OciRegistry, request: pytest.FixtureRequest) -> str:
    """A repository of its own for each test."""
    return f"{server.address}/{request.node.name.split('[')[0]}/engines:1.4"


def push(handoff: Handoff, reference: str, *more: object) -> int:
    return main(
        ["push", f"oci://{reference}", "--manifest", str(handoff.manifest), "--plain-http", *map(str, more)]
    )


def write_bills(handoff: Handoff) -> None:
    """Bills of materials beside the manifest."""
    card = parse_model_card({"license": "Apache-2.0", "supplier": "Example Ltd <models@example.org>"})
    data = handoff.manifest.read_bytes()
    bom = Bom(
        name="manifest.json",
        sha256=sha(data),
        sha512=hashlib.sha512(data).hexdigest(),
        hardware="orin_nx",
        parts={
            n: Part(ref=n, kind=ENGINE, name=n, sha256=e.sha256, card=card)
            for n, e in handoff.entries.items()
        },
        steps=(),
        needs={},
        runtimes={},
        created=None,
        writer=Tool("test", "1"),
    )
    for name, text in zip(boms_of("manifest.json"), (cyclonedx.dump(bom), spdx.dump(bom))):
        handoff.path(name).write_bytes(text)


def sign_model_of(handoff: Handoff, key: bytes) -> None:
    files = {path.name: sha(path.read_bytes()) for path in handoff.folder.iterdir()}
    bundle = sign_model(statement("manifest", "manifest.sig", files), load_signing_key(key.decode()))
    handoff.path("manifest.sig").write_bytes(bundle)


def artifact_of(handoff: Handoff):
    return make_artifact(read_manifest(str(handoff.manifest)), handoff.folder)


def oras_pull(repository: str, folder: Path) -> Path:
    """What ORAS itself writes of an artifact that it did not make."""
    import oras.client

    oras.client.OrasClient(insecure=True).pull(target=repository, outdir=str(folder))
    return folder


def test_skopeo_reads_what_was_pushed(handoff: Handoff, server, repository, keys, tmp_path, capsys) -> None:
    handoff.list(keys[0])
    write_bills(handoff)
    assert push(handoff, repository) == 0
    said = capsys.readouterr().out
    raw = server.raw(repository.partition("/")[2])
    assert f"PUSHED oci://{repository} (sha256:{sha(raw)}): 2 engines, 10 files, 11 uploaded" in said
    done = server.skopeo("copy", "--src-tls-verify=false", f"docker://{repository}", f"dir:{tmp_path}/copy")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "copy/manifest.json").read_bytes())
    read = {
        layer["annotations"]["org.cncf.model.filepath"]: (
            tmp_path / "copy" / layer["digest"][7:]
        ).read_bytes()
        for layer in manifest["layers"]
    }
    assert read == {path.name: path.read_bytes() for path in handoff.folder.iterdir()}
    kinds = {
        layer["annotations"]["org.opencontainers.image.title"]: layer["mediaType"]
        for layer in manifest["layers"]
    }
    assert kinds[A] == "application/vnd.cncf.model.weight.v1.raw"
    assert kinds["manifest.json"] == kinds[A + ".sha256"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert kinds["manifest.json.cdx.json"] == "application/vnd.cncf.model.doc.v1.raw"
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert {
        path.name: path.read_bytes() for path in oras_pull(repository, tmp_path / "oras").iterdir()
    } == read
    config = json.loads((tmp_path / "copy" / manifest["config"]["digest"][7:]).read_bytes())
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    assert config["descriptor"]["vendor"] == "Example Ltd"
    assert config["config"] == {"format": "tensorrt", "precision": "float16,float32"}


def test_the_configuration_follows_the_schema_of_modelpack(handoff: Handoff) -> None:
    """schema/config-schema.json of modelpack/model-spec."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((REPO / "tests/support/modelpack_config_schema.json").read_text())
    write_bills(handoff)
    artifact = artifact_of(handoff)
    config = json.loads(artifact.config)
    jsonschema.validate(config, schema)
    digests = [layer["digest"] for layer in json.loads(artifact.manifest)["layers"]]
    assert config["modelfs"]["diffIds"] == digests
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "time": "now"}, schema)


def test_a_second_push_of_another_clone_uploads_nothing(
    handoff: Handoff, server, repository, tmp_path, capsys
):
    assert push(handoff, repository) == 0
    first = server.raw(repository.partition("/")[2])
    clone = tmp_path / "clone"
    shutil.copytree(handoff.folder, clone, copy_function=shutil.copyfile)
    at = len(server.requests())
    command = [
        "push",
        f"oci://{repository}",
        str(clone),
        "--manifest",
        str(clone / "manifest.json"),
        "--plain-http",
    ]
    assert main(command) == 0
    assert {request.split()[0] for request in server.requests()[at:]} <= {"GET", "HEAD"}
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith(f"UNCHANGED oci://{repository} (sha256:{sha(first)})")
    )
    assert server.raw(repository.partition("/")[2]) == first


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


SPOILED = {
    Status.SIDECAR: lambda handoff: handoff.path(A + ".sha256").unlink(),
    Status.SIDECAR_HASH: lambda handoff: flip(handoff.path(A)),
    Status.MANIFEST: lambda handoff: handoff.path("SHA256SUMS").unlink(),
    Status.MISSING: lambda handoff: handoff.path(B).unlink(),
}


@pytest.mark.parametrize("status", SPOILED, ids=str)
def test_what_verify_refuses_is_not_pushed(status, handoff: Handoff, capsys) -> None:
    """Nothing listens at this address, so a request would be status 1."""
    SPOILED[status](handoff)
    assert push(handoff, f"127.0.0.1:9/{NAME}") == status
    out, err = capsys.readouterr()
    assert out.startswith("REFUSED ")
    assert (len(out.splitlines()), err) == (1, "")


def test_bills_of_another_manifest_are_not_pushed(handoff: Handoff, capsys) -> None:
    write_bills(handoff)
    handoff.add(B, plan(b"another engine"))
    handoff.list()
    assert push(handoff, f"127.0.0.1:9/{NAME}") == 1
    why = f"{handoff.folder}/manifest.json.cdx.json: of another manifest; write both again"
    assert capsys.readouterr().err == f"HandoffError: {why}\n"


@pytest.mark.parametrize("name", ["manifest.json.intoto.jsonl", "manifest.sig"])
def test_a_signature_of_other_files_is_not_pushed(name: str, handoff: Handoff, keys, capsys) -> None:
    """Nothing listens at this address."""
    handoff.list(keys[0])
    sign_model_of(handoff, keys[0])
    assert artifact_of(handoff)
    handoff.add(B, plan(b"another engine"))
    handoff.list(None if name.endswith("jsonl") else keys[0])
    again = "remove it, or write it again with SIGNING_KEY="
    for why in ("signs other files than these", "damaged (KeyError)", "damaged (JSONDecodeError)"):
        assert push(handoff, f"127.0.0.1:9/{NAME}") == 1
        assert capsys.readouterr().err == f"HandoffError: {handoff.folder}/{name}: {why}; {again}\n"
        handoff.path(name).write_text("{}" if why.startswith("signs") else "{")


def test_a_release_that_no_trusted_key_signed_is_not_pushed(handoff: Handoff, keys, tmp_path, capsys) -> None:
    (tmp_path / "key.pub").write_bytes(keys[1])
    assert push(handoff, f"127.0.0.1:9/{NAME}", "--trusted-key", tmp_path / "key.pub") == Status.SIGNATURE
    assert capsys.readouterr().out.startswith("REFUSED ")


def test_an_engine_that_changes_after_it_was_verified_leaves_no_tag(
    handoff: Handoff, server, repository
) -> None:
    artifact = artifact_of(handoff)
    flip(handoff.path(B))
    with pytest.raises(HandoffError, match=rf"oci://{repository}: {B}: .*digest"):
        Registry(Reference.parse(f"oci://{repository}"), True).push(artifact)
    assert server.raw(repository.partition("/")[2]) is None


@pytest.mark.slow
def test_a_push_that_is_killed_leaves_no_tag_and_is_finished_by_the_next(
    handoff: Handoff, server, repository
):
    handoff.add("c__sm80plus_cu13.0_rtx1.7_fp32.engine", rtx_plan(b"\0" * (2 * CHUNKED)))
    handoff.list()
    arguments = ["push", f"oci://{repository}", "--manifest", handoff.manifest, "--plain-http"]
    env = {**CLEAN, "PYTHONPATH": str(REPO / "site_scons")}
    process = subprocess.Popen([sys.executable, "-m", "scons_tensorrt", *arguments], env=env)
    while not any(request.startswith("PATCH") for request in server.requests()):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert server.raw(repository.partition("/")[2]) is None
    assert push(handoff, repository) == 0
    assert server.raw(repository.partition("/")[2]) == artifact_of(handoff).manifest


@pytest.mark.slow
def test_a_registry_with_a_login_takes_that_of_docker(
    handoff: Handoff, tmp_path, monkeypatch, capsys
) -> None:
    server = OciRegistry(tmp_path / "registry", login=True)
    try:
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        assert push(handoff, f"{server.address}/{NAME}") == 1
        wanted = f"{server.address} wants a login: run `docker login {server.address}` first"
        assert capsys.readouterr().err == f"HandoffError: oci://{server.address}/{NAME}: {wanted}\n"
        auths = {server.address: {"auth": base64.b64encode(b"builder:secret").decode()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        assert push(handoff, f"{server.address}/{NAME}") == 0
        auths[server.address]["auth"] = base64.b64encode(b"builder:wrong").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        capsys.readouterr()
        assert push(handoff, f"{server.address}/{NAME}") == 1
        refused = f"{server.address} refuses the login: run `docker login {server.address}` again"
        assert capsys.readouterr().err == f"HandoffError: oci://{server.address}/{NAME}: {refused}\n"
    finally:
        server.close()


@pytest.mark.slow
def test_a_registry_with_tls_needs_an_authority_that_is_trusted(
    handoff: Handoff, tmp_path, monkeypatch, capsys
):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = OciRegistry(tmp_path / "registry", certificate=authority.issue_cert("127.0.0.1"))
    reference = f"oci://{server.address}/{NAME}"
    command = ["push", reference, "--manifest", str(handoff.manifest)]
    try:
        assert main(command) == 1
        why = "no TLS there that this Python trusts; for a registry without TLS, give --plain-http"
        assert capsys.readouterr().err == f"HandoffError: {reference}: {why}\n"
        assert main([*command, "--plain-http"]) == 1
        why = f"no registry answers at http://{server.address}/v2/ (400 Bad Request)"
        assert capsys.readouterr().err == f"HandoffError: {reference}: {why}\n"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        assert main(command) == 0
    finally:
        server.close()


def test_what_is_not_there_is_one_line(server, repository, tmp_path, capsys) -> None:
    assert main(["pull", f"oci://{repository}", str(tmp_path / "new"), "--plain-http"]) == 1
    assert capsys.readouterr().err == f"HandoffError: oci://{repository}: the registry has no such artifact\n"
    assert list(tmp_path.iterdir()) == []


def test_what_was_pulled_is_what_was_pushed(
    handoff: Handoff, server, repository, keys, tmp_path, capsys
) -> None:
    handoff.list(keys[0])
    write_bills(handoff)
    sign_model_of(handoff, keys[0])
    (tmp_path / "key.pub").write_bytes(keys[1])
    assert push(handoff, repository) == 0
    pull = ["pull", f"oci://{repository}", str(tmp_path / "new/here"), "--plain-http"]
    assert main([*pull, "--trusted-key", str(tmp_path / "key.pub")]) == 0
    got = {path.name: path.read_bytes() for path in (tmp_path / "new/here").iterdir()}
    assert got == {path.name: path.read_bytes() for path in handoff.folder.iterdir()}
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"PULLED oci://{repository} (sha256:")
    assert main(pull) == 1
    assert (
        capsys.readouterr().err
        == f"HandoffError: {tmp_path}/new/here: already exists; choose a folder to create\n"
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["here"]


def test_a_pull_of_other_bytes_or_of_a_stranger_makes_no_folder(
    handoff: Handoff, server, repository, keys, tmp_path, capsys
):
    handoff.add(B, plan(b"engine of this test"))
    handoff.list()
    (tmp_path / "key.pub").write_bytes(keys[1])
    assert push(handoff, repository) == 0
    pull = ["pull", f"oci://{repository}", str(tmp_path / "new/here"), "--plain-http"]
    assert main([*pull, "--trusted-key", str(tmp_path / "key.pub")]) == Status.SIGNATURE
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"REFUSED {tmp_path}/new/here/manifest.json.intoto.jsonl: signature: not readable")
    flip(server.blob(sha(handoff.path(B).read_bytes())))
    assert main(pull) == 1
    assert (
        capsys.readouterr().err == f"HandoffError: oci://{repository}: {B}: the registry sent other bytes\n"
    )
    assert list((tmp_path / "new").iterdir()) == []


LAYER = {"digest": "sha256:" + "0" * 64, "size": 1, "annotations": {"org.cncf.model.filepath": "x"}}


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [{**LAYER, "annotations": {"org.cncf.model.filepath": "../x"}}],
        [{**LAYER, "annotations": {"org.cncf.model.filepath": ".."}}],
        [{**LAYER, "annotations": {"org.cncf.model.filepath": "/etc/x"}}],
        [{**LAYER, "annotations": {}}],
        [{**LAYER, "digest": "sha256:../x"}],
        [{**LAYER, "size": "1"}],
        [LAYER, LAYER],
        None,
    ],
)
def test_an_artifact_that_no_push_made_is_not_pulled(layers) -> None:
    assert files_in(json.dumps({"artifactType": ARTIFACT, "layers": [LAYER]}).encode()) == {
        "x": ("sha256:" + "0" * 64, 1)
    }
    with pytest.raises(HandoffError):
        files_in(json.dumps({"artifactType": ARTIFACT, "layers": layers}).encode())


def test_an_image_of_a_container_is_not_pulled() -> None:
    with pytest.raises(HandoffError, match="not a release of engines"):
        files_in(json.dumps({"layers": [LAYER]}).encode())


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1/x:1",
        "oci://x",
        "oci://x/Y:1",
        "oci://x/y",
        "oci://x/y:",
        "oci://x/../y:1",
        "oci://x/y@sha256:0",
    ],
)
def test_a_wrong_reference_is_one_line(text: str, handoff: Handoff, capsys) -> None:
    assert main(["push", text, "--manifest", str(handoff.manifest)]) == 1
    assert capsys.readouterr().err.startswith(f"HandoffError: {text}: not like oci://")


def test_without_oras_one_line_names_the_package(handoff: Handoff, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "oras", None)
    monkeypatch.setitem(sys.modules, "oras.provider", None)
    assert push(handoff, f"127.0.0.1:9/{NAME}") == 1
    why = "oras is not installed: run `python3 -m pip install oras`, or install the extra `oci`"
    assert capsys.readouterr().err == f"HandoffError: oci://127.0.0.1:9/{NAME}: {why}\n"


def test_a_registry_that_is_not_there_is_one_line(handoff: Handoff, capsys) -> None:
    pytest.importorskip("oras")
    assert push(handoff, f"127.0.0.1:9/{NAME}") == 1
    assert (
        capsys.readouterr().err == f"HandoffError: oci://127.0.0.1:9/{NAME}: the registry cannot be reached\n"
    )
