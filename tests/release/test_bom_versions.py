"""A version that a user declared is not taken for the beginning of a sha256, which stands where none is."""

from __future__ import annotations

import pytest

from scons_tensorrt.release.bom.check import declared

SHA256 = "1f" * 32


@pytest.mark.parametrize(
    ("version", "found"), [("1", "1"), ("1f", "1f"), ("2.0", "2.0"), (SHA256[:12], ""), ("", "")]
)
def test_only_the_first_twelve_characters_of_the_sha256_are_no_version(version: str, found: str) -> None:
    component = {"version": version, "hashes": [{"alg": "SHA-256", "content": SHA256}]}
    assert declared(component)["version"] == found
