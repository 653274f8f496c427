"""Bills of materials beside a manifest: CycloneDX and SPDX, both of one bill (`bill.py`), which `collect.py`
makes of receipts.

The JSON is written here and not by a library: cyclonedx-python-lib has neither model cards nor formulations,
and a library's version would change the bytes. Tests read both files with the libraries of the formats.
"""
