"""Invites that were looked at before they are made.

A room is asked about once, with everybody in its invite list. Synapse asks about each invite again
when it makes it; those who were asked about already are not asked about twice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_stonechat.clock import Clock

KEPT_FOR = 120.0
"""How long an invite may take to be made, in seconds."""
MAX_EXPECTED = 10_000
"""Maximum number of invites that are remembered; the oldest make room."""


class Expected:
    """Who is about to invite whom. Each is good for one invite."""

    def __init__(self, clock: Clock) -> None:
        """Expect nobody yet."""
        self._clock = clock
        # Ordered: a plain dict looks for its first key past all those that were deleted.
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def add(self, inviter: str, people: Iterable[str]) -> None:
        """Expect these invites."""
        now = self._clock.seconds()
        for person in people:
            self._until[inviter, person] = now + KEPT_FOR
            self._until.move_to_end((inviter, person))
        while self._until:
            oldest = next(iter(self._until))
            if len(self._until) <= MAX_EXPECTED and self._until[oldest] > now:
                break
            del self._until[oldest]

    def take(self, inviter: str, invitee: str) -> bool:
        """Return whether this invite was expected. The next one of the same kind is not."""
        until = self._until.pop((inviter, invitee), None)
        return until is not None and self._clock.seconds() < until
