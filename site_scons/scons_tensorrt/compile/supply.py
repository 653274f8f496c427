"""Where else a file can come from than from this host's own work: a store, another machine.

`make` and `make_step` know only these protocols; who stands behind them is the graph's to choose.
Whatever a supplier brings is checked and published as if it had been made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EngineBuildError
from ..integrity.receipt import Receipt
from ..record import Record

if TYPE_CHECKING:
    from .make import Workshop
    from .wanted import Wanted


class Supplied(Record):
    """A file made elsewhere, whole in the partial file of whoever asked.

    how: "fetched" or "dispatched"; sha256, size (bytes): of what was written, hashed as it came;
    details: of its receipt, see `integrity.receipt`; seconds: that bringing it took.
    """

    how: str
    sha256: str
    size: int
    details: Mapping[str, Any]
    seconds: float


class Supplier(Protocol):
    """Asked in order, under the engine's lock, before this host compiles."""

    def supply(self, wanted: Wanted, partial: Path, shop: Workshop) -> Supplied | None:
        """Write the wanted engine to `partial`, a file that is there and empty; None where it is
        not to be had, whatever was written then.

        Raises EngineError where there is no use in compiling it here either.
        """


class Taker(Protocol):
    """Told what this host made; must not hold up the build, and raises nothing."""

    def made(self, wanted: Wanted, receipt: Receipt) -> None:
        """An engine was compiled here and published."""

    def refused(self, wanted: Wanted, error: EngineBuildError) -> None:
        """The same inputs would be refused on any host."""
