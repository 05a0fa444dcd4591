"""What the module needs of Twisted's reactor: passed in, so that tests need not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A call that will be made unless it is cancelled."""

    def active(self) -> bool:
        """Return whether the call is still to be made."""

    def cancel(self) -> None:
        """Prevent the call."""


class Clock(Protocol):
    """The time, and calls at a later time."""

    def seconds(self) -> float:
        """Return the time, in seconds."""

    def callLater(self, delay: float, callable: Callable[..., Any], /) -> Timer:  # noqa: A002, N802
        """Call something after a number of seconds."""
