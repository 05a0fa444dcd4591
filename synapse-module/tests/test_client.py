from __future__ import annotations

from typing import Any, cast

from twisted.internet import defer, task

from synapse_stonechat.client import FIRST_PAUSE, Answer, Stonechat
from synapse_stonechat.config import DEFAULT_TIME_LIMIT, Config
from synapse_stonechat.rooms import Question
from tests.fakes import TOKEN, URL, QuietTest, Web, refuse, silence

SAMS, KIMS = "@_dm_sam:stone.test", "@_dm_kim:stone.test"
SAM, ROB = "@samuel:stone.test", "@rob:stone.test"
QUESTION = Question("@alice:stone.test", (SAMS, KIMS), (ROB,), direct=False, encrypted=True)
GOOD = {"handles": {SAMS: {"owner": SAM}, KIMS: {"owner": None}}, "blocked": []}


class ClientTest(QuietTest):
    def setUp(self) -> None:
        super().setUp()
        self.web, self.clock = Web(), task.Clock()
        config = Config(URL, "unused here")
        self.stonechat = Stonechat(
            cast("Any", self.web), config, self.token(), cast("Any", self.clock)
        )

    def ask(self) -> defer.Deferred[Answer | None]:
        return defer.ensureDeferred(self.stonechat.introduce(QUESTION))

    def answers(self, said: Any) -> Any:
        self.web.answer = lambda *_: said
        return self.successResultOf(self.ask())

    def test_all_is_asked_in_one_request_with_the_token(self) -> None:
        self.assertEqual(self.answers(GOOD), Answer({SAMS: SAM}, frozenset()))
        [(what, body)] = self.web.asked
        self.assertEqual(what, "introduce")
        self.assertEqual(
            body,
            {
                "asker": "@alice:stone.test",
                "handles": [SAMS, KIMS],
                "people": [ROB],
                "direct": False,
                "encrypted": True,
            },
        )
        token = f"Bearer {TOKEN}".encode()
        self.assertEqual(self.web.headers, [{b"Authorization": [token]}])

    def test_nothing_is_taken_from_an_answer_that_was_not_asked_for(self) -> None:
        said = {
            "handles": {SAMS: {"owner": SAM}, "@_dm_eve:stone.test": {"owner": "@eve:stone.test"}},
            "blocked": ["@somebody:stone.test", ROB],
        }
        self.assertEqual(self.answers(said), Answer({SAMS: SAM}, frozenset([ROB])))

    def test_nonsense_is_no_answer(self) -> None:
        nonsense: list[Any] = [
            None,
            [],
            "yes",
            5,
            {},
            {"handles": None, "blocked": []},
            {"handles": [SAM], "blocked": []},
            {"handles": {SAMS: SAM}, "blocked": []},
            {"handles": {SAMS: {}}, "blocked": []},
            {"handles": {SAMS: {"owner": 5}}, "blocked": []},
            {"handles": {SAMS: {"owner": "samuel"}}, "blocked": []},
            {"handles": {}, "blocked": "nobody"},
            {"handles": {}, "blocked": [[]]},
            {"handles": {}},
        ]
        for said in nonsense:
            self.setUp()
            with self.warning("does not answer (introduce: "):
                self.assertIsNone(self.answers(said), said)

    def test_nobody_waits_longer_than_the_limit(self) -> None:
        asked = self.ask()
        self.clock.advance(DEFAULT_TIME_LIMIT - 0.01)
        self.assertNoResult(asked)
        with self.warning("no answer within 0.5 s"):
            self.clock.advance(0.02)
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_comes_too_late_does_no_harm(self) -> None:
        late = silence()
        self.web.answer = lambda *_: late
        asked = self.ask()
        with self.warning("no answer within 0.5 s"):
            self.clock.advance(1)
        self.assertIsNone(self.successResultOf(asked))
        if not late.called:
            late.callback(GOOD)

    def test_what_the_other_side_words_forges_no_line_of_the_log(self) -> None:
        def refuse_oddly(*_: Any) -> Any:
            raise ConnectionRefusedError("no\n2026-01-01 \x1b[31mWARNING " + "x" * 10_000)

        self.web.answer = refuse_oddly
        with self.assertLogs("synapse_stonechat", "WARNING") as logs:
            self.assertIsNone(self.successResultOf(self.ask()))
        [line] = logs.output
        self.assertTrue(line.isprintable(), line)
        self.assertLess(len(line), 400)

    def test_after_a_failure_nobody_waits_until_a_pause_is_over(self) -> None:
        asked = self.ask()
        with self.warning("no answer within 0.5 s"):
            self.clock.advance(1)
        self.assertIsNone(self.successResultOf(asked))
        # Nor is it logged again, until Stonechat has answered.
        for _ in range(100):
            self.assertIsNone(self.successResultOf(self.ask()))
        self.assertEqual(len(self.web.asked), 1)

        self.clock.advance(FIRST_PAUSE)
        one, other = self.ask(), self.ask()
        # One of the two tries; the other goes on at once.
        self.assertNoResult(one)
        self.assertIsNone(self.successResultOf(other))
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(one))
        self.assertEqual(len(self.web.asked), 2)

        # The pause has doubled.
        self.clock.advance(FIRST_PAUSE)
        self.assertIsNone(self.successResultOf(self.ask()))
        self.assertEqual(len(self.web.asked), 2)
        self.clock.advance(FIRST_PAUSE)
        self.assertIsNotNone(self.answers(GOOD))
        self.assertIsNotNone(self.answers(GOOD))
        self.assertEqual(len(self.web.asked), 4)

    def test_a_report_that_arrives_ends_the_pause(self) -> None:
        self.web.answer = refuse
        with self.warning("does not answer (introduce: connection refused)"):
            self.assertIsNone(self.successResultOf(self.ask()))
        report = defer.ensureDeferred(self.stonechat.report({"version": "1"}))
        self.assertFalse(self.successResultOf(report))
        self.web.answer = lambda *_: {}
        report = defer.ensureDeferred(self.stonechat.report({"version": "1"}))
        self.assertTrue(self.successResultOf(report))
        self.assertIsNotNone(self.answers(GOOD))

    def test_what_fails_late_does_not_undo_an_answer(self) -> None:
        # Synapse's own start, before Stonechat was there; and then it is.
        early: defer.Deferred[Any] = defer.Deferred()
        self.web.answer = lambda *_: early
        first = defer.ensureDeferred(self.stonechat.report({"version": "1"}))
        self.assertNoResult(first)
        self.web.answer = lambda *_: {}
        second = defer.ensureDeferred(self.stonechat.report({"version": "1"}))
        self.assertTrue(self.successResultOf(second))
        early.errback(ConnectionRefusedError("connection refused"))
        self.assertFalse(self.successResultOf(first))
        self.assertTrue(self.stonechat.answers())
        self.assertIsNotNone(self.answers(GOOD))

    def test_who_has_blocked_whom(self) -> None:
        self.web.answer = lambda *_: {"blocked": [ROB, SAM]}
        asked = defer.ensureDeferred(self.stonechat.blocked("@alice:stone.test", [ROB]))
        self.assertEqual(self.successResultOf(asked), frozenset([ROB]))
        asked_for = {"inviter": "@alice:stone.test", "people": [ROB]}
        self.assertEqual(self.web.asked, [("blocked", asked_for)])
