"""Finds the least size of each external-data file of an ONNX; read_onnx.py finds the tensors.

A tensor's data begins at its `offset`. Its `length` must match the tensor's type and shape. Without a
`length`, the onnx package and TensorRT read to the end of the file, so the file must end where the tensor
does.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import RecipeError

MANY = 1 << 62  # elements; larger counts are reduced to this
# DataType of onnx.proto3: name, and bits of an element (0 if that varies). The first is number 1.
_TYPES = (
    "fp32:32 uint8:8 int8:8 uint16:16 int16:16 int32:32 int64:64 string:0 bool:8 fp16:16 fp64:64 uint32:32 "
    "uint64:64 complex64:64 complex128:128 bf16:16 fp8:8 fp8:8 fp8:8 fp8:8 uint4:4 int4:4 fp4:4 e8m0:8"
)
TYPES: Mapping[int, tuple[str, int]] = {
    number: (name, int(bits))
    for number, (name, bits) in enumerate((each.split(":") for each in _TYPES.split()), start=1)
}


class ExternalData:
    """Collects the external data of a model's tensors. ends: by location, the minimum size of the file in
    bytes."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self._to_end: dict[str, set[int]] = {}

    def add(self, name: str, dtype: int, count: int, entries: Mapping[str, str]) -> None:
        """Add a tensor. entries: its external_data. Raises RecipeError."""
        location = entries["location"]
        offset, length = _number(entries.get("offset")), _number(entries.get("length"))
        size = -(-count * TYPES.get(dtype, ("", 0))[1] // 8) if count < MANY else 0
        if size and length and length != size:
            raise RecipeError(
                f"tensor `{name[:200]}` has {length} bytes of external data {location[:200]!r}, but its "
                f"type and shape need {size}; export the model again"
            )
        end = offset + (length or size)
        self.ends[location] = max(end, self.ends.get(location, 0))
        if size and not length:
            self._to_end.setdefault(location, set()).add(end)

    def exact(self) -> tuple[str, ...]:
        """The locations of files that must have exactly their minimum size. Raises RecipeError if a tensor
        without `length` is not the last one in its file."""
        for location, ends in self._to_end.items():
            if min(ends) < self.ends[location]:
                raise RecipeError(
                    f"a tensor without `length` extends to the end of external data {location[:200]!r}, but "
                    "another tensor's data follows it; save the model again with onnx.save"
                )
        return tuple(sorted(self._to_end))


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0
