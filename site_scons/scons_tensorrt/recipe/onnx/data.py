"""Which bytes of which external-data files an ONNX takes.

A tensor's data begins at its `offset`. A `length` must be what the tensor's type and shape take. Without
one, the data runs to the end of the file: so the onnx package and TensorRT read it, and such a file
must end where the tensor does.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import RecipeError

MANY = 1 << 62  # elements, and whatever is more
# DataType of onnx.proto3: its name, and the bits of an element; 0 where that varies.
TYPES: Mapping[int, tuple[str, int]] = {
    number: (name, int(bits))
    for number, (name, _, bits) in enumerate(
        (
            each.partition(":")
            for each in "fp32:32 uint8:8 int8:8 uint16:16 int16:16 int32:32 int64:64 string:0 bool:8 "
            "fp16:16 fp64:64 uint32:32 uint64:64 complex64:64 complex128:128 bf16:16 fp8:8 fp8:8 "
            "fp8:8 fp8:8 uint4:4 int4:4 fp4:4 e8m0:8".split()
        ),
        start=1,
    )
}


class ExternalData:
    """Collects the external data of a model's tensors. ends: by location, the bytes that the file must
    have at least."""

    def __init__(self) -> None:
        self.ends: dict[str, int] = {}
        self._to_end: dict[str, set[int]] = {}

    def add(self, name: str, dtype: int, count: int, entries: Mapping[str, str]) -> None:
        """A tensor's data. entries: of its external_data. Raises RecipeError."""
        location = entries["location"]
        offset, length = _number(entries.get("offset")), _number(entries.get("length"))
        size = -(-count * TYPES.get(dtype, ("", 0))[1] // 8) if count < MANY else 0
        if size and length and length != size:
            raise RecipeError(
                f"tensor `{name[:200]}` has {length} bytes of external data {location[:200]!r}, and its "
                f"type and shape take {size}; export the model again"
            )
        end = offset + (length or size)
        self.ends[location] = max(end, self.ends.get(location, 0))
        if size and not length:
            self._to_end.setdefault(location, set()).add(end)

    def exact(self) -> tuple[str, ...]:
        """The locations of files that must have no byte more. Raises RecipeError where two tensors
        would both end the same file, at different places."""
        for location, ends in self._to_end.items():
            if min(ends) < self.ends[location]:
                raise RecipeError(
                    f"a tensor without `length` takes external data {location[:200]!r} to its end, and "
                    "another tensor's data lies behind it; save the model again with onnx.save"
                )
        return tuple(sorted(self._to_end))


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 20 else 0
