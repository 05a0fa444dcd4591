from __future__ import annotations

from typing import Any

from synapse.module_api.errors import ConfigError
from twisted.trial import unittest

from synapse_stonechat import StonechatModule
from synapse_stonechat.config import Config

TOKEN_FILE = "/var/lib/stonechat/config/module.token"


class ConfigTest(unittest.TestCase):
    def given(self, **changes: Any) -> dict[str, Any]:
        config = {"url": "http://127.0.0.1:29331/", "token_file": TOKEN_FILE} | changes
        return {key: value for key, value in config.items() if value is not None}

    def refused(self, *parts: str, **changes: Any) -> None:
        with self.assertRaises(ConfigError) as refused:
            StonechatModule.parse_config(self.given(**changes))
        for part in parts:
            self.assertIn(part, refused.exception.msg)

    def test_what_init_prints_is_accepted(self) -> None:
        config = StonechatModule.parse_config(self.given(time_limit="500ms"))
        self.assertEqual(config, Config("http://127.0.0.1:29331", TOKEN_FILE, 0.5))
        self.assertEqual(StonechatModule.parse_config(self.given()), config)

    def test_the_time_limit_has_a_unit_and_bounds(self) -> None:
        for given, seconds in [("1s", 1.0), ("250 ms", 0.25), (2, 2.0), (0.3, 0.3)]:
            limit = StonechatModule.parse_config(self.given(time_limit=given)).time_limit
            self.assertEqual(limit, seconds)
        for given in ["fast", "0ms", "1h", 60, -1, True, [1]]:
            self.refused("`time_limit`", "500ms", time_limit=given)

    def test_mistakes_are_refused_with_words(self) -> None:
        self.refused("`url`", "is missing", url=None)
        self.refused("`url`", "http or https", url="ftp://example.org")
        self.refused("`url`", "http or https", url="127.0.0.1:29331")
        self.refused("`url`", "not a URL", url="http://[::1")
        self.refused("`url`", "not a URL", url="http://127.0.0.1:x")
        self.refused("`url`", "user name", url="http://me:secret@127.0.0.1")
        self.refused("`url`", "after ? or #", url="http://127.0.0.1/?a=1")
        self.refused("`token_file`", "is missing", token_file=None)
        self.refused("`token_file`", "is missing", token_file=7)
        self.refused("`tokenfile`", "is unknown", "token_file", tokenfile="x")
        with self.assertRaises(ConfigError):
            StonechatModule.parse_config(None)  # type: ignore[arg-type]
