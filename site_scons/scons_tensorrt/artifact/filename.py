r"""The filename of an engine: its fields, and what each may be. `parse` is the inverse of `build`.

    <model>__sm<SM>[plus]_<platform>_<runtime>_<precision>.engine

    >>> name = EngineFilename.parse("dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine")
    >>> name.model, name.sm, name.plus, name.platform, name.runtime, name.precision
    ('dinov2_vpr', 87, False, 'jp6.2', 'trt10.3', 'fp16')
    >>> name.build()
    'dinov2_vpr__sm87_jp6.2_trt10.3_fp16.engine'

The first `__` ends the model name, so a model name cannot contain it.
"""

from __future__ import annotations

from ..errors import EngineFilenameError, brief, plural
from ..hardware.signature import HardwareSignature, is_number
from ..values import Value

SUFFIX = ".engine"
SIDECAR_SUFFIX = ".sha256"
RECORDED_SUFFIX = ".recorded.npz"  # of what `scons-tensorrt check` compares an engine with
MODEL_LENGTH = 64
LONGEST = 255  # characters of a name quoted in a message
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8", "int4", "fp4", "mixed")

_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


class _Fields(Value):
    model: str
    sm: int
    plus: bool
    platform: str
    runtime: str
    precision: str


class EngineFilename(_Fields):
    """The fields of an engine filename.

    model: `[a-z0-9_]+`, at most 64 characters, no `__`, no leading or trailing `_`.
    sm: compute capability without its dot (87, 120); plus: also later architectures.
    platform: `jp<major.minor>` (JetPack) or `cu<major.minor>` (CUDA of the runtime library).
    runtime: `trt<major.minor>` or `rtx<major.minor>`.
    precision: one of PRECISIONS.

    Raises EngineFilenameError with the name of an invalid field.
    """

    __slots__ = ()

    def __new__(
        cls, model: str, sm: int, plus: bool, platform: str, runtime: str, precision: str
    ) -> EngineFilename:
        check_model_name(model)
        if type(sm) is not int or not 0 < sm < 10000:
            raise EngineFilenameError(f"SM {sm!r}: not a compute capability such as 87")
        for field, value, known, example in (
            ("platform", platform, ("jp", "cu"), "jp6.2 or cu13.0"),
            ("runtime", runtime, ("trt", "rtx"), "trt10.3 or rtx1.7"),
        ):
            if not any(value.startswith(start) and _is_version(value[len(start) :]) for start in known):
                raise EngineFilenameError(f"{field} {value!r}: not like {example}")
        if precision not in PRECISIONS:
            raise EngineFilenameError(f"precision {precision!r}: not one of {', '.join(PRECISIONS)}")
        return super().__new__(cls, model, sm, plus, platform, runtime, precision)

    @classmethod
    def of(
        cls, signature: HardwareSignature, model: str, precision: str, ampere_plus: bool = False
    ) -> EngineFilename:
        """The filename of a model's engine for this hardware. ampere_plus: for Ampere and later. Raises
        HardwareError if neither JetPack nor CUDA version is known."""
        sm, plus = (80, True) if ampere_plus else (signature.sm, signature.plus)
        return cls(model, sm, plus, signature.platform, signature.runtime, precision)

    def build(self) -> str:
        """The filename."""
        plus = "plus" if self.plus else ""
        return f"{self.model}__sm{self.sm}{plus}_{self.platform}_{self.runtime}_{self.precision}{SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> EngineFilename:
        """The fields of a bare filename. Raises EngineFilenameError with the invalid part."""
        try:
            return cls._parse(name)
        except EngineFilenameError as error:
            shown, why = repr(name[:LONGEST]), str(error)[: 2 * LONGEST]
            raise EngineFilenameError(f"{shown} is not an engine's filename: {why}") from None

    @classmethod
    def _parse(cls, name: str) -> EngineFilename:
        if not name.endswith(SUFFIX):
            raise EngineFilenameError(f"it does not end in {SUFFIX}")
        model, separator, rest = name[: -len(SUFFIX)].partition("__")
        if not separator:
            raise EngineFilenameError("no `__` ends the model's name")
        fields = rest.split("_")
        if len(fields) != 4:
            raise EngineFilenameError(
                f"{plural(len(fields), 'field')} after `__`, not 4 (sm, platform, runtime, precision)"
            )
        sm = fields[0].removeprefix("sm").removesuffix("plus")
        plus = fields[0].endswith("plus")
        if not fields[0].startswith("sm") or not _is_plain_number(sm, 4) or sm == "0":
            raise EngineFilenameError(f"SM {fields[0]!r}: not like sm87 or sm80plus")
        return cls(model, int(sm), plus, *fields[1:])

    def matches_host(self, host: HardwareSignature) -> str:
        """'yes', 'no' or 'maybe': could this engine load on `host`? Ignores precision.

        'maybe' is for an RTX engine for several architectures, which only the plan's capability
        mask lists.
        """
        if (self.platform, self.runtime) != (host.platform, host.runtime):
            return "no"
        if not self.plus:
            return "yes" if self.sm == host.sm and not host.plus else "no"
        if host.sm < self.sm:
            return "no"
        return "maybe" if self.runtime.startswith("rtx") else "yes"


def _is_word(text: str) -> bool:
    return bool(text) and _WORD.issuperset(text)


def _is_version(text: str) -> bool:
    major, _, minor = text.partition(".")
    return _is_plain_number(major, 6) and _is_plain_number(minor, 6)


def _is_plain_number(text: str, digits: int) -> bool:
    return is_number(text, digits) and (text == "0" or text[0] != "0")


def check_model_name(model: object) -> None:
    """Raise EngineFilenameError unless `model` is a valid model name."""
    if not isinstance(model, str) or not all(map(_is_word, model.split("_"))):
        raise EngineFilenameError(
            f"model name {brief(model)}: write lower-case letters and digits in words joined by "
            "single underscores, such as dinov2_vpr"
        )
    if len(model) > MODEL_LENGTH:
        raise EngineFilenameError(
            f"model name {brief(model)}: {len(model)} characters, at most {MODEL_LENGTH}"
        )
