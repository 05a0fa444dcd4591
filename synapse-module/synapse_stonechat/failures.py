"""Failures of the module itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse_stonechat.clock import Clock

logger = logging.getLogger(__name__)

WARN_EVERY = 3600.0
"""Minimum interval between two warnings about one callback, in seconds."""


class Failures:
    """A log of failed callbacks, with at most one warning an hour for each."""

    def __init__(self, clock: Clock) -> None:
        """Create an empty log."""
        self._clock = clock
        self._warned: dict[str, float] = {}

    def caught(self, callback: str, error: Exception) -> None:
        """Log an exception and the callback that it came from."""
        now = self._clock.seconds()
        last = self._warned.get(callback)
        if last is not None and now < last + WARN_EVERY:
            logger.debug("%s failed again", callback, exc_info=error)
            return
        self._warned[callback] = now
        logger.warning(
            "%s failed; the room or invite passes as without the module. Please report this to "
            "Stonechat's developers; for an hour its further failures are logged at debug only",
            callback,
            exc_info=error,
        )
