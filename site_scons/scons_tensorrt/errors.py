"""What can go wrong, as one family. A message is one line: the file, the fact, the next step."""


class EngineError(Exception):
    """Base of every error this package raises on purpose."""


class EngineFilenameError(EngineError, ValueError):
    """A name is not an engine's filename, or a field cannot stand in one."""


class HardwareError(EngineError):
    """The hardware or backend asked for is unknown, ambiguous, or its runtime is not installed."""


class SidecarError(EngineError):
    """A sidecar is missing, or is not the sha256 of one engine."""


class ReceiptError(EngineError):
    """A receipt is damaged, or is not the receipt its name says."""


class RecipeError(EngineError):
    """What `env.Engine` was asked for cannot be: an option, a shape, a model, a plugin."""


class EngineBuildError(EngineError):
    """The compile failed: the parser's or builder's reason, or how the worker ended.

    lasting: the same inputs would be refused by this runtime on any host.
    """

    lasting = False


class CalibrationCacheError(EngineError):
    """A calibration cache and its sidecar do not agree, or one of the two is missing."""


class AccuracyError(EngineError):
    """A converted model's outputs are further from the original's than `accuracy=` allows."""


class HardwareMismatchError(EngineError):
    """The engine cannot be made here: wanted and found hardware or runtime differ."""


class PublishError(EngineError):
    """The engine's bytes could not be written or moved to their place."""


class HandoffError(EngineError):
    """What was built cannot be handed on: a manifest, an installation, what shall be pruned."""


class SigningError(EngineError):
    """A manifest cannot be signed, or its signature cannot be checked: the key, or `cryptography`."""


class LockTimeout(EngineError):
    """Another process held an engine's or a GPU's lock for longer than TRT_LOCK_TIMEOUT."""


class StoreError(EngineError):
    """The shared store, or a key of it, cannot be used. It never fails a build."""


class DispatchError(EngineError):
    """No other machine could compile it: none is connected that can, or none answers."""


class Interrupted(EngineError):
    """The build was asked to stop (Ctrl-C, SIGTERM) while a compile ran."""


def one_line(text: str) -> str:
    """`text` without what would end its line or steer a terminal: names that strangers chose reach
    messages. Also without what is no character, which no stream could print."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def by_name(name: str) -> type[EngineError]:
    """The error class called `name`; `EngineBuildError` for a name this version does not know."""
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, EngineError):
        return found
    return EngineBuildError
