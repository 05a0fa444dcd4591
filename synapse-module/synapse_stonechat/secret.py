"""The token by which Stonechat knows the module.

No problem with its file keeps Synapse from starting or a room from being made: until there is a
token, the module lets everything pass. The file is read again while Synapse runs, so that a token
that is made, repaired or replaced later is used without a restart.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_FILE = 4096
"""Maximum number of bytes read from the file."""
_TOKEN = re.compile(r"[!-~]{32,255}")
_MAKE_IT = "make it with `stonechat registration --with-module`"


class UnusableTokenError(Exception):
    """A token file that cannot be used, and what to do about it."""


class Token:
    """The token in a file, as of the last time it was read."""

    def __init__(self, path: str) -> None:
        """Read the file for the first time."""
        self._path = Path(path)
        self._value: str | None = None
        self._problem: str | None = None
        self.take(self.look())

    def value(self) -> str | None:
        """Return the token, if there is a usable one."""
        return self._value

    def look(self) -> str | UnusableTokenError:
        """Read the file. Changes nothing, so it may run on another thread."""
        try:
            return _read(self._path)
        except UnusableTokenError as error:
            return error

    def take(self, found: str | UnusableTokenError) -> None:
        """Use what `look` found, and log a problem once."""
        if isinstance(found, str):
            if self._problem is not None:
                logger.info("the Stonechat module has its token and works from now on")
            self._value, self._problem = found, None
            return
        self._value = None
        if self._problem != str(found):
            self._problem = str(found)
            logger.warning(
                "the Stonechat module has no token: %s. Until it has one, rooms and invites pass "
                "as without the module; the file is read again while Synapse runs",
                found,
            )


def _read(path: Path) -> str:
    try:
        mode, content = _open_and_read(path)
    except FileNotFoundError as error:
        raise UnusableTokenError(f"{path} is not there; {_MAKE_IT}") from error
    except (OSError, ValueError) as error:
        raise UnusableTokenError(
            f"{path} cannot be read ({error}); let Synapse read it: "
            f"chgrp matrix-synapse {path} && chmod 640 {path}"
        ) from error
    if not stat.S_ISREG(mode):
        raise UnusableTokenError(f"{path} is not a file; {_MAKE_IT}")
    if mode & stat.S_IRWXO:
        raise UnusableTokenError(f"{path} can be read by others; run: chmod 640 {path}")
    token = content.decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(token):
        raise UnusableTokenError(f"{path} holds no token of Stonechat's; {_MAKE_IT}")
    return token


def _open_and_read(path: Path) -> tuple[int, bytes]:
    # Without O_NONBLOCK, opening a pipe in the file's place would wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        return mode, os.read(descriptor, MAX_FILE) if stat.S_ISREG(mode) else b""
    finally:
        os.close(descriptor)
