"""What `homeserver.yaml` says to the module."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from synapse.module_api.errors import ConfigError

DEFAULT_TIME_LIMIT = 0.5
"""How long a room may wait for Stonechat, in seconds."""

_KNOWN = {"url", "token_file", "time_limit"}
_LIMITS = (0.05, 5.0)
_TOKEN_LENGTHS = range(32, 256)


@dataclass(frozen=True, repr=False)
class Config:
    """The module's configuration. Without a repr: it holds a secret."""

    url: str
    """Where Stonechat listens, without a slash at the end."""
    token: str
    """What shows Stonechat that it is the module who asks."""
    time_limit: float = DEFAULT_TIME_LIMIT
    """How long a room may wait for Stonechat, in seconds."""


def parse(config: Any) -> Config:
    """Read the module's part of `homeserver.yaml`, and refuse what cannot work, saying why."""
    if not isinstance(config, dict):
        raise ConfigError(
            "the Stonechat module needs `url` and `token_file` under `config:`; "
            "`stonechat registration --with-module` prints them"
        )
    unknown = sorted(str(key) for key in config if key not in _KNOWN)
    if unknown:
        raise _wrong(unknown[0], f"is unknown; there are {', '.join(sorted(_KNOWN))}")
    return Config(
        url=_url(config.get("url")),
        token=_token(config.get("token_file")),
        time_limit=_time_limit(config.get("time_limit", DEFAULT_TIME_LIMIT)),
    )


def _wrong(key: str, problem: str) -> ConfigError:
    return ConfigError(f"the Stonechat module's `{key}` {problem}", [key])


def _url(value: Any) -> str:
    like = "write it like http://127.0.0.1:29331"
    if not isinstance(value, str) or not value:
        raise _wrong("url", f"is missing: where Stonechat listens; {like}")
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port  # parsed only when it is asked for
    except ValueError as error:
        raise _wrong("url", f"is no URL ({error}); {like}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong("url", f"is no URL of http or https; {like}")
    if parts.username is not None or parts.password is not None:
        raise _wrong("url", "holds a user name or password; take it out")
    if parts.query or parts.fragment:
        raise _wrong("url", "has a part after ? or #; take it out")
    return value.rstrip("/")


def _token(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(
            "token_file",
            "is missing: the file that `stonechat init --with-module` made",
        )
    path = Path(value)
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(
            "token_file",
            f"cannot be read: {error}; Synapse needs to: "
            f"chgrp matrix-synapse {path} && chmod 640 {path}",
        ) from error
    if mode & stat.S_IRWXO:
        raise _wrong("token_file", f"can be read by others; run: chmod 640 {path}")
    if len(token) not in _TOKEN_LENGTHS or not re.fullmatch(r"[!-~]+", token):
        raise _wrong(
            "token_file",
            f"{path} holds no token of Stonechat's; make it with "
            "`stonechat registration --with-module`",
        )
    return token


def _time_limit(value: Any) -> float:
    """Read `500ms`, `1s`, or a number of seconds."""
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := re.fullmatch(r"(\d{1,6}) ?(ms|s)", value.strip())):
        seconds = int(found[1]) / (1000 if found[2] == "ms" else 1)
    least, most = _LIMITS
    if seconds is None or not least <= seconds <= most:
        raise _wrong("time_limit", "must be between 50ms and 5s, like 500ms")
    return seconds
