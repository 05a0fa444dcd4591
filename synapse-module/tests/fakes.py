"""Fakes of what the module needs: Synapse's API, Stonechat, the clock."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import defer, task
from twisted.trial import unittest

from synapse_stonechat import StonechatModule
from synapse_stonechat.config import Config
from synapse_stonechat.secret import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

HERE = "stone.test"
TOKEN = "mod_" + "0" * 64
URL = "http://127.0.0.1:29331"


class Web:
    """An HTTP client that records requests and returns prepared answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str, dict[str, Any]], Any] = lambda _what, _body: silence()
        self.headers: list[dict[bytes, list[bytes]]] = []

    async def post_json_get_json(
        self, uri: str, body: dict[str, Any], headers: dict[bytes, list[bytes]]
    ) -> Any:
        what = uri.removeprefix("http://127.0.0.1:29331/_stonechat/v1/")
        self.asked.append((what, body))
        self.headers.append(headers)
        said = self.answer(what, body)
        return await said if isinstance(said, defer.Deferred) else said

    def paths(self) -> list[str]:
        return [what for what, _ in self.asked]


def silence() -> defer.Deferred[Any]:
    """Return an answer that never comes and ignores being cancelled."""
    return defer.Deferred(lambda _: None)


def refuse(*_: Any) -> Any:
    raise ConnectionRefusedError("connection refused")


class Api:
    """The part of Synapse's module API that the module uses."""

    def __init__(self) -> None:
        self.server_name = HERE
        self.worker_name: str | None = None
        self.http_client = Web()
        self.account_data: dict[tuple[str, str], dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.deactivated: set[str] = set()
        self.account_data_manager = SimpleNamespace(get_global=self._get_global)
        self.callbacks: dict[str, Any] = {}
        self.background: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def register_third_party_rules_callbacks(self, **callbacks: Any) -> None:
        self.callbacks |= callbacks

    def register_spam_checker_callbacks(
        self, *, user_may_invite: Any, federated_user_may_invite: Any = None
    ) -> None:
        self.callbacks["user_may_invite"] = user_may_invite
        self.callbacks["federated_user_may_invite"] = federated_user_may_invite

    def delayed_background_call(self, _msec: float, call: Any, **_: Any) -> None:
        self.background.append(call)

    def looping_background_call(self, call: Any, msec: float, **_: Any) -> None:
        del call, msec

    async def defer_to_thread(self, call: Callable[[], Any]) -> Any:
        return call()

    def is_mine(self, user: str) -> bool:
        return user.endswith(f":{HERE}")

    async def get_userinfo_by_id(self, user: str) -> Any:
        if user in self.gone:
            return None
        return SimpleNamespace(is_deactivated=user in self.deactivated)

    async def _get_global(self, user: str, kind: str) -> Any:
        return self.account_data.get((user, kind))


class QuietTest(unittest.TestCase):
    """A test that fails on a warning that it does not expect.

    Expected warnings are not printed, so each one that is printed is a failure.
    """

    def setUp(self) -> None:
        quiet = self.assertNoLogs("synapse_stonechat", "WARNING")
        quiet.__enter__()
        self.addCleanup(quiet.__exit__, None, None, None)

    @contextmanager
    def warning(self, *expected: str) -> Iterator[Any]:
        """Expect exactly these warnings, each given by a part of its text."""
        with self.assertLogs("synapse_stonechat", "WARNING") as logs:
            yield logs
        self.assertEqual(len(logs.output), len(expected), logs.output)
        for part, line in zip(expected, logs.output, strict=True):
            self.assertIn(part, line)

    def token_file(self, content: str = TOKEN) -> Path:
        """Make a token file as Stonechat does."""
        path = Path(self.mktemp())
        path.write_text(content + "\n", encoding="utf-8")
        path.chmod(0o640)
        return path

    def config(self) -> Config:
        return Config(URL, str(self.token_file()))

    def token(self) -> Token:
        return Token(str(self.token_file()))

    def make_module(
        self, api: Api | None = None, given: Config | None = None
    ) -> tuple[StonechatModule, Api, task.Clock]:
        """Make a module that has reported nothing yet, on a clock that stands still."""
        api, clock = api or Api(), task.Clock()
        given = given or self.config()
        return StonechatModule(given, cast("Any", api), cast("Any", clock)), api, clock
