"""Invites that Stonechat was asked about before Synapse makes them.

The module asks about a room once, with everybody in its invite list. Synapse then calls the module
for each of these invites again; Stonechat is not asked about them twice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_stonechat.clock import Clock

KEPT_FOR = 120.0
"""How long an invite is remembered until Synapse makes it, in seconds."""
MAX_EXPECTED = 10_000
"""Maximum number of invites that are remembered; the oldest are dropped first."""


class Expected:
    """The expected invites, by inviter and invitee. Each is used up by one invite."""

    def __init__(self, clock: Clock) -> None:
        """Expect nothing yet."""
        self._clock = clock
        # A plain dict, to find its first key, walks past all those that were deleted.
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
        """Return whether this invite was expected, and expect it no longer."""
        until = self._until.pop((inviter, invitee), None)
        return until is not None and self._clock.seconds() < until
