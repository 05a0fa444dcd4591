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
    """A log of the callbacks that failed: one warning an hour for each, whatever the number."""

    def __init__(self, clock: Clock) -> None:
        """Create an empty log."""
        self._clock = clock
        self._warned: dict[str, float] = {}

    def caught(self, callback: str, error: Exception) -> None:
        """Log an exception, with where it came from."""
        now = self._clock.seconds()
        last = self._warned.get(callback)
        if last is not None and now < last + WARN_EVERY:
            logger.debug("%s failed again", callback, exc_info=error)
            return
        self._warned[callback] = now
        logger.warning(
            "%s failed, and what it was asked about passes as without the module. Please report "
            "this to Stonechat; further failures of it are not logged for an hour",
            callback,
            exc_info=error,
        )
