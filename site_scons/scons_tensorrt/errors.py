"""The errors of this package, and how messages are worded: one line with file, fact and next step."""


class EngineError(Exception):
    """Base of every error this package raises on purpose."""


class EngineFilenameError(EngineError, ValueError):
    """A name is not an engine filename, or a field is not valid in one."""


class HardwareError(EngineError):
    """The hardware or backend asked for is unknown, ambiguous, or its runtime is not installed."""


class SidecarError(EngineError):
    """A sidecar is missing or malformed."""


class ReceiptError(EngineError):
    """A receipt is damaged, or does not belong to its filename."""


class RecipeError(EngineError):
    """A recipe is invalid: an option, a shape, a model or a plugin."""


class EngineBuildError(EngineError):
    """The compile failed: the reason given by the parser or builder, or how the worker ended.

    lasting: this runtime would refuse the same inputs on any host.
    """

    lasting = False


class CalibrationCacheError(EngineError):
    """A calibration cache does not match its sidecar, or one of the two is missing."""


class AccuracyError(EngineError):
    """The outputs of a converted model differ from the original by more than `accuracy=` allows."""


class HardwareMismatchError(EngineError):
    """This host cannot build the engine: its hardware or runtime is not the one requested."""


class PublishError(EngineError):
    """The engine could not be written or moved into place."""


class HandoffError(EngineError):
    """A manifest, an installation or a prune failed."""


class SigningError(EngineError):
    """A key cannot sign or verify: it is neither Ed25519 nor ECDSA P-256, or `cryptography` is missing."""


class LockTimeout(EngineError):
    """Another process held an engine's or a GPU's lock for longer than TRT_LOCK_TIMEOUT."""


class StoreError(EngineError):
    """The shared store cannot be used. Never fails a build."""


class DispatchError(EngineError):
    """No remote worker could compile the engine: none is suitable, or none answers."""


class Interrupted(EngineError):
    """The build was stopped (Ctrl-C, SIGTERM) during a compile."""


_RENAMED = {"SignatureError": "HardwareMismatchError"}  # old names, kept for one release


def __getattr__(name: str) -> type[EngineError]:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    new = _RENAMED[name]
    warnings.warn(f"{name} is now {new}; the old name goes in the next release", DeprecationWarning, 2)
    return by_name(new)


def one_line(text: str) -> str:
    """`text` with control characters and lone surrogates escaped: messages quote names that others
    chose, which must neither break a line nor control the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(value: object) -> str:
    """A value of the user's as Python writes it, but neither deep nor long."""
    import reprlib  # only where something is wrong

    text = reprlib.Repr()
    text.maxstring = text.maxother = 100
    return text.repr(value)


def plural(number: int, one: str, many: str = "") -> str:
    """1 engine, 2 engines. many: the plural form (default: `one` plus "s")."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def by_name(name: str) -> type[EngineError]:
    """The error class called `name`, today or in the last release; `EngineBuildError` for any other."""
    found = globals().get(_RENAMED.get(name, name))
    if isinstance(found, type) and issubclass(found, EngineError):
        return found
    return EngineBuildError
