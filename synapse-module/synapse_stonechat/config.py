"""The module's part of `homeserver.yaml`.

A mistake in it is an error that Synapse reports when it starts: an admin has just written it, and
nobody would notice the mistake otherwise. A missing or unusable token file is not an error, since
another program writes it: see `secret.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from synapse.module_api.errors import ConfigError

DEFAULT_TIME_LIMIT = 0.5
"""How long a room or an invite may wait for Stonechat, in seconds."""

_KNOWN = {"url", "token_file", "time_limit"}
_LIMITS = (0.05, 5.0)


@dataclass(frozen=True)
class Config:
    """The module's configuration."""

    url: str
    """Where Stonechat listens, without a slash at the end."""
    token_file: str
    """The path of the file with the token by which Stonechat knows the module."""
    time_limit: float = DEFAULT_TIME_LIMIT
    """How long a room or an invite may wait for Stonechat, in seconds."""


def parse(config: Any) -> Config:
    """Read the module's part of `homeserver.yaml`; refuse what cannot work, and say why."""
    if not isinstance(config, dict):
        raise ConfigError(
            "the Stonechat module needs `url` and `token_file` under `config:`; "
            "`stonechat registration --with-module` prints them"
        )
    unknown = sorted(str(key) for key in config if key not in _KNOWN)
    if unknown:
        raise _wrong(unknown[0], f"is unknown; the options are {', '.join(sorted(_KNOWN))}")
    return Config(
        url=_url(config.get("url")),
        token_file=_token_file(config.get("token_file")),
        time_limit=_time_limit(config.get("time_limit", DEFAULT_TIME_LIMIT)),
    )


def _wrong(key: str, problem: str) -> ConfigError:
    return ConfigError(f"the Stonechat module's `{key}` {problem}", [key])


def _url(value: Any) -> str:
    like = "write it like http://127.0.0.1:29331"
    if not isinstance(value, str) or not value:
        raise _wrong("url", f"is missing: it says where Stonechat listens; {like}")
    try:
        parts = urlsplit(value)
        host = parts.hostname
        _ = parts.port  # checked only when it is read
    except ValueError as error:
        raise _wrong("url", f"is not a URL ({error}); {like}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong("url", f"is not an http or https URL; {like}")
    if parts.username is not None or parts.password is not None:
        raise _wrong("url", "contains a user name or password; remove it")
    if parts.query or parts.fragment:
        raise _wrong("url", "has a part after ? or #; remove it")
    return value.rstrip("/")


def _token_file(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(
            "token_file",
            "is missing: it names the file that `stonechat registration --with-module` made",
        )
    return value


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
