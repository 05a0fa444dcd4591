"""What the module needs of Twisted's reactor: handed in, so that tests need not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def active(self) -> bool:
        """Whether it is still to happen."""

    def cancel(self) -> None:
        """Let it not happen."""


class Clock(Protocol):
    """The time, and what happens at a time."""

    def seconds(self) -> float:
        """Tell the time, in seconds."""

    def callLater(self, delay: float, callable: Callable[..., Any], /) -> Timer:  # noqa: A002, N802
        """Let something happen after so many seconds."""
