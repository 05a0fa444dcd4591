"""Questions to Stonechat over HTTP, and how long the module waits for the answers.

No failure reaches the people who wait: if a question is not answered in time, or the answer makes
no sense, the caller gets `None` and does what it would do without the module.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from synapse.api.errors import HttpResponseException
from synapse.module_api import make_deferred_yieldable, run_in_background
from twisted.internet import defer
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from synapse.module_api import SimpleHttpClient

    from synapse_stonechat.clock import Clock
    from synapse_stonechat.config import Config
    from synapse_stonechat.rooms import Question
    from synapse_stonechat.secret import Token

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE = 2.0
"""How long the module asks nothing after the first question without an answer, in seconds."""
LONGEST_PAUSE = 60.0
"""Maximum pause, in seconds. The pause doubles with each further question without an answer."""
MAX_LOGGED = 255
"""Maximum number of characters of an error in the log."""
REPORT_LIMIT = 5.0
"""How long a report may take, in seconds. Nobody waits for it."""


@dataclass(frozen=True)
class Answer:
    """Stonechat's answer about a room that is being created."""

    owners: dict[str, str]
    """By ghost, the owner to invite in its place. A ghost without an owner here stays invited."""
    blocked: frozenset[str]
    """The people who do not want to be invited by this person."""


class Stonechat:
    """Stonechat over HTTP, with a limit on how long anybody waits for an answer."""

    def __init__(self, http: SimpleHttpClient, config: Config, token: Token, clock: Clock) -> None:
        """Prepare to ask; nothing is sent yet."""
        self._http = http
        self._base = f"{config.url}/_stonechat/v1"
        self._token = token
        self._limit = config.time_limit
        self._clock = clock
        self._failures = 0
        self._answers = 0
        self._ask_again_at = 0.0

    def answers(self) -> bool:
        """Return whether the last question was answered."""
        return not self._failures

    async def introduce(self, question: Question) -> Answer | None:
        """Ask about everybody who is invited into a room that is being created."""
        body = {
            "asker": question.asker,
            "handles": list(question.ghosts),
            "people": list(question.people),
            "direct": question.direct,
            "encrypted": question.encrypted,
        }
        return await self._ask("introduce", body, lambda said: _answer(said, question))

    async def blocked(self, inviter: str, people: Sequence[str]) -> frozenset[str] | None:
        """Ask which of these people do not want to be invited by this inviter."""
        body = {"inviter": inviter, "people": list(people)}
        return await self._ask("blocked", body, lambda said: _blocked(said, people))

    async def report(self, about: dict[str, Any]) -> bool:
        """Tell Stonechat that the module is loaded, and return whether it answered.

        A report is sent even during a pause, so that an answer ends the pause early.
        """
        if self._token.value() is None:
            return False
        answers = self._answers
        try:
            await self._within(REPORT_LIMIT, self._post, "module", about)
        except Exception as error:  # noqa: BLE001
            self._failed("module", error, answers)
            return False
        self._answered()
        return True

    async def deactivated(self, user: str) -> bool:
        """Tell Stonechat that this account was deactivated, and return whether it has answered.

        Like a report, this is sent even during a pause.
        """
        if self._token.value() is None:
            return False
        answers = self._answers
        try:
            await self._within(REPORT_LIMIT, self._post, "deactivated", {"user": user})
        except HttpResponseException as error:
            # An answer, and always the same one: those behind it must not wait for it.
            if error.code == HTTPStatus.BAD_REQUEST:
                logger.warning("Stonechat refuses to erase %s: %s", user, _one_line(error))
                return True
            self._failed("deactivated", error, answers)
            return False
        except Exception as error:  # noqa: BLE001
            self._failed("deactivated", error, answers)
            return False
        self._answered()
        return True

    async def _ask(self, what: str, body: dict[str, Any], read: Callable[[Any], T]) -> T | None:
        # A missing token was logged when its file was read. It says nothing about whether Stonechat
        # answers, so it does not begin a pause either.
        if self._token.value() is None or self._pausing():
            return None
        answers = self._answers
        try:
            said = read(await self._within(self._limit, self._post, what, body))
        except Exception as error:  # noqa: BLE001
            self._failed(what, error, answers)
            return None
        self._answered()
        return said

    async def _post(self, what: str, body: dict[str, Any]) -> Any:
        headers = {b"Authorization": [f"Bearer {self._token.value()}".encode("ascii")]}
        return await self._http.post_json_get_json(f"{self._base}/{what}", body, headers)

    def _pausing(self) -> bool:
        if not self._failures:
            return False
        now = self._clock.seconds()
        if now < self._ask_again_at:
            return True
        # This question is asked; until it is answered, others are not asked and nobody waits.
        self._ask_again_at = now + self._limit
        return False

    def _failed(self, what: str, error: Exception, answers: int) -> None:
        why = _one_line(error)
        if self._answers != answers:
            # Another question was answered after this one was sent. For example, a report from
            # Synapse's start fails only now, and Stonechat has started meanwhile.
            logger.info("Stonechat did not answer once, and has answered since (%s: %s)", what, why)
            return
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._ask_again_at = self._clock.seconds() + pause
        if not self._failures:
            logger.warning(
                "Stonechat does not answer (%s: %s); until it does, ghosts introduce", what, why
            )
        # The pause is at its maximum long before this.
        self._failures = min(self._failures + 1, 10)

    def _answered(self) -> None:
        if self._failures:
            logger.info("Stonechat answers again")
        self._failures = 0
        self._answers += 1

    async def _within(self, seconds: float, call: Callable[..., Awaitable[T]], *args: object) -> T:
        """Wait no longer than this, even for a call that ignores being cancelled."""
        first: defer.Deferred[T] = defer.Deferred()
        running = run_in_background(call, *args)

        def ended(result: T | Failure) -> None:
            if first.called:
                return
            if isinstance(result, Failure):
                first.errback(result)
            else:
                first.callback(result)

        def too_late() -> None:
            if not first.called:
                first.errback(TimeoutError(f"no answer within {seconds:g} s"))
            running.cancel()

        running.addBoth(ended)
        timer = self._clock.callLater(seconds, too_late)
        try:
            return await make_deferred_yieldable(first)
        finally:
            if timer.active():
                timer.cancel()


def _one_line(error: Exception) -> str:
    """Return an error's text, safe for a log: the other side may have written it."""
    text = str(error)[:MAX_LOGGED]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _answer(said: Any, question: Question) -> Answer:
    """Read an answer, ignoring everything that was not asked for."""
    owners: dict[str, str] = {}
    handles = said["handles"]
    if not isinstance(handles, dict):
        raise TypeError("a map of handles was expected")
    for ghost in question.ghosts:
        owner = handles[ghost]["owner"] if ghost in handles else None
        if owner is None:
            continue
        if not isinstance(owner, str) or not owner.startswith("@") or ":" not in owner:
            raise ValueError("an owner without a Matrix ID")
        owners[ghost] = owner
    return Answer(owners=owners, blocked=_blocked(said, question.people))


def _blocked(said: Any, people: Sequence[str]) -> frozenset[str]:
    blocked = said["blocked"]
    if not isinstance(blocked, list):
        raise TypeError("a list was expected")
    return frozenset(people).intersection(blocked)
