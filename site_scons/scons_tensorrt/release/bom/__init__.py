"""Bills of materials beside a manifest: CycloneDX and SPDX, both of one bill (`bill.py`), which `collect.py`
makes of receipts.

The JSON is written here and not by a library: cyclonedx-python-lib has neither model cards nor formulations,
and a library's version would change the bytes. Tests read both files with the libraries of the formats.
"""

VERSION = "1"  # of both files; changing it rewrites them
CYCLONEDX_SUFFIX = ".cdx.json"
SPDX_SUFFIX = ".spdx.json"
LARGEST = 256 << 20  # bytes of a file


def boms_of(name: str) -> tuple[str, str]:
    """The files of a manifest called `name`: CycloneDX, SPDX."""
    return name + CYCLONEDX_SUFFIX, name + SPDX_SUFFIX
