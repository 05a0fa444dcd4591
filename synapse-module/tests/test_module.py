from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

from synapse.api.errors import HttpResponseException
from synapse.events import EventBase, make_event_from_dict
from synapse.logging.context import LoggingContext  # type: ignore[attr-defined]
from synapse.module_api import NOT_SPAM
from synapse.module_api.callbacks.spamchecker_callbacks import SpamCheckerModuleApiCallbacks
from synapse.module_api.errors import Codes, SynapseError
from synapse.util.clock import Clock
from twisted.internet import defer
from twisted.internet.testing import MemoryReactorClock

from synapse_stonechat import StonechatModule
from synapse_stonechat.failures import WARN_EVERY
from synapse_stonechat.module import (
    MAX_DEACTIVATED,
    READ_EVERY,
    REPORT_AGAIN,
    REPORT_EVERY,
)
from tests.fakes import HERE, TOKEN, URL, Api, QuietTest, refuse, silence
from tests.test_rooms import ALICE, BOT, KIM, KIMS, SAM, SAMS, direct

ROOM = "!room:stone.test"
EVE = "@eve:elsewhere.org"


class OldApi(Api):
    """The module API before Synapse 1.133."""

    def register_spam_checker_callbacks(self, *, user_may_invite: Any) -> None:  # type: ignore[override]
        self.callbacks["user_may_invite"] = user_may_invite


class HomeServer:
    """What Synapse's own calling of callbacks needs."""

    hostname = HERE

    def get_clock(self) -> Clock:
        return Clock(cast("Any", MemoryReactorClock()), HERE)


def invite(inviter: str, invitee: str | None) -> EventBase:
    """Make the event by which somebody of another server invites."""
    return make_event_from_dict(
        {
            "type": "m.room.member",
            "sender": inviter,
            "room_id": "!room:elsewhere.org",
            "event_id": "$invite:elsewhere.org",
            "content": {"membership": "invite"},
            "origin_server_ts": 1,
            "depth": 1,
            "hashes": {},
            "signatures": {},
            "auth_events": [],
            "prev_events": [],
        }
        | ({} if invitee is None else {"state_key": invitee})
    )


class ModuleTest(QuietTest):
    def setUp(self) -> None:
        super().setUp()
        self.module, self.api, self.clock = self.make_module()
        self.web = self.api.http_client
        self.owners: dict[str, str | None] = {SAMS: SAM, KIMS: KIM}
        self.blocked: set[str] = set()
        self.web.answer = self.answer

    def answer(self, what: str, body: dict[str, Any]) -> Any:
        blocked = [user for user in body.get("people", []) if user in self.blocked]
        handles = {ghost: {"owner": self.owners.get(ghost)} for ghost in body.get("handles", [])}
        return (
            {"handles": handles, "blocked": blocked}
            if what == "introduce"
            else {"blocked": blocked}
        )

    def create(
        self, content: dict[str, Any], by: str = ALICE, *, admin: bool = False
    ) -> defer.Deferred[None]:
        requester = SimpleNamespace(user=SimpleNamespace(to_string=lambda: by))
        done = self.api.callbacks["on_create_room"](requester, content, admin)
        return defer.ensureDeferred(done)

    def may_invite(self, inviter: str, invitee: str) -> Any:
        done = self.api.callbacks["user_may_invite"](inviter, invitee, ROOM)
        return self.successResultOf(defer.ensureDeferred(done))

    def federated_may_invite(self, inviter: str, invitee: str | None) -> Any:
        """Ask as Synapse does about an invite that arrives from another server."""
        checks = SpamCheckerModuleApiCallbacks(cast("Any", HomeServer()))
        checks.register_callbacks(
            user_may_invite=self.api.callbacks["user_may_invite"],
            federated_user_may_invite=self.api.callbacks["federated_user_may_invite"],
        )
        with LoggingContext(name="invite", server_name=HERE):
            done = checks.federated_user_may_invite(invite(inviter, invitee))
            said = self.successResultOf(defer.ensureDeferred(done))
        return said if said == NOT_SPAM else said[0]

    def report(self) -> None:
        self.successResultOf(defer.ensureDeferred(self.module.look_after_itself()))

    def test_the_owner_takes_the_ghosts_place(self) -> None:
        content = direct(SAMS)
        self.successResultOf(self.create(content))
        self.assertEqual(content, direct(SAM))
        self.assertEqual(self.web.paths(), ["introduce"])

    def test_a_masked_handles_ghost_stays(self) -> None:
        self.owners = {SAMS: None, KIMS: KIM}
        content = {"invite": [SAMS, KIMS]}
        self.successResultOf(self.create(content))
        self.assertEqual(content, {"invite": [SAMS, KIM]})

    def test_rooms_are_created_as_without_the_module_when_stonechat_does_not_answer(self) -> None:
        for answer in [refuse, lambda *_: "nonsense", lambda *_: {"handles": {SAMS: {"owner": 1}}}]:
            self.setUp()
            self.web.answer = answer
            content = direct(SAMS)
            with self.warning("does not answer (introduce: "):
                self.successResultOf(self.create(content))
            self.assertEqual(content, direct(SAMS))

    def test_a_slow_stonechat_is_waited_for_once_and_half_a_second_only(self) -> None:
        self.web.answer = lambda *_: defer.Deferred(lambda _: None)
        content = direct(SAMS, KIM)
        created = self.create(content)
        self.clock.advance(0.49)
        self.assertNoResult(created)
        with self.warning("no answer within 0.5 s"):
            self.clock.advance(0.02)
        self.successResultOf(created)
        self.assertEqual(content, direct(SAMS, KIM))
        for invitee in (SAMS, KIM, "@x:stone.test"):
            self.assertEqual(self.may_invite(ALICE, invitee), NOT_SPAM)
        self.assertEqual(self.web.paths(), ["introduce"])

    def test_a_direct_room_is_encrypted_even_if_stonechat_is_down(self) -> None:
        self.web.answer = refuse
        content = direct(SAMS, initial_state=[])
        with self.warning("connection refused"):
            self.successResultOf(self.create(content))
        self.assertEqual(content, direct(SAMS))

    def test_a_chat_with_the_bot_is_encrypted_and_asks_nothing(self) -> None:
        content = direct(BOT, initial_state=[])
        self.successResultOf(self.create(content))
        self.assertEqual(content, direct(BOT))
        self.assertEqual(self.web.asked, [])

    def test_an_owner_whom_synapse_would_not_let_be_invited_is_left_to_the_ghost(self) -> None:
        setting, unstable = (
            "m.invite_permission_config",
            "org.matrix.msc4155.invite_permission_config",
        )
        for prepare in (
            lambda api: api.gone.add(SAM),
            lambda api: api.deactivated.add(SAM),
            lambda api: api.account_data.update({(SAM, setting): {"default_action": "block"}}),
            lambda api: api.account_data.update({(SAM, unstable): {"blocked_users": ["@a*"]}}),
            lambda api: api.account_data.update({(SAM, unstable): {"blocked_servers": ["*"]}}),
        ):
            self.setUp()
            cast("Any", prepare)(self.api)
            content = direct(SAMS)
            self.successResultOf(self.create(content))
            self.assertEqual(content, direct(SAMS))
        self.setUp()
        self.api.account_data[SAM, setting] = {"default_action": "allow"}
        content = direct(SAMS)
        self.successResultOf(self.create(content))
        self.assertEqual(content, direct(SAM))

    def test_an_owner_elsewhere_is_left_to_the_ghost(self) -> None:
        self.owners = {SAMS: "@sam:elsewhere.org"}
        content = direct(SAMS)
        self.successResultOf(self.create(content))
        self.assertEqual(content, direct(SAMS))

    def test_what_breaks_in_here_breaks_no_room_and_is_logged_once_an_hour(self) -> None:
        self.api.get_userinfo_by_id = refuse  # type: ignore[assignment]
        for _ in range(2):
            with self.warning("on_create_room failed"):
                for _ in range(100):
                    content = direct(SAMS)
                    self.successResultOf(self.create(content))
                    self.assertEqual(content, direct(SAMS))
            self.clock.advance(WARN_EVERY)

    def test_what_breaks_in_here_breaks_no_invite_and_no_report(self) -> None:
        self.module._expected.take = refuse  # type: ignore[assignment]  # noqa: SLF001
        with self.warning("user_may_invite failed"):
            for _ in range(100):
                self.assertEqual(self.may_invite(ALICE, SAM), NOT_SPAM)
        with self.warning("federated_user_may_invite failed"):
            for _ in range(100):
                self.assertEqual(self.federated_may_invite(EVE, SAM), NOT_SPAM)
        self.module._stonechat.report = refuse  # type: ignore[assignment]  # noqa: SLF001
        with self.warning("look_after_itself failed"):
            for _ in range(10):
                self.clock.advance(REPORT_AGAIN)
                self.report()

    def test_a_blocked_persons_room_is_refused_before_it_is_there(self) -> None:
        self.blocked = {SAM}
        content = direct(SAM, KIMS)
        before = copy.deepcopy(content)
        error = self.failureResultOf(self.create(content), SynapseError).value
        self.assertEqual((error.code, error.errcode), (403, Codes.FORBIDDEN))
        self.assertIn(SAM, error.msg)
        self.assertEqual(content, before)
        # Server admins may invite whomever they want to: Synapse asks no module about them.
        self.successResultOf(self.create(content, admin=True))
        self.assertEqual(content, direct(SAM, KIM))

    def test_blocked_people_cannot_invite_by_matrix_id(self) -> None:
        self.blocked = {SAM}
        self.assertEqual(self.may_invite(ALICE, SAM), Codes.FORBIDDEN)
        self.assertEqual(self.may_invite(ALICE, KIM), NOT_SPAM)
        self.web.answer = refuse
        with self.warning("does not answer (blocked: connection refused)"):
            self.assertEqual(self.may_invite(ALICE, SAM), NOT_SPAM)

    def test_ghosts_and_the_bot_are_not_asked_about(self) -> None:
        self.blocked = {SAM}
        self.assertEqual(self.may_invite(SAMS, SAM), NOT_SPAM)
        self.assertEqual(self.may_invite(BOT, SAM), NOT_SPAM)
        self.assertEqual(self.may_invite(ALICE, SAMS), NOT_SPAM)
        self.assertEqual(self.federated_may_invite(EVE, SAMS), NOT_SPAM)
        self.assertEqual(self.federated_may_invite(EVE, BOT), NOT_SPAM)
        self.successResultOf(self.create(direct(SAM), by=SAMS))
        self.assertEqual(self.web.asked, [])

    def test_blocked_people_of_other_servers_cannot_invite_either(self) -> None:
        self.blocked = {SAM}
        self.assertEqual(self.federated_may_invite(EVE, SAM), Codes.FORBIDDEN)
        self.assertEqual(self.web.asked, [("blocked", {"inviter": EVE, "people": [SAM]})])
        self.assertEqual(self.federated_may_invite(EVE, KIM), NOT_SPAM)
        # Synapse asks both callbacks about one invite; Stonechat is asked once.
        self.assertEqual(self.web.paths(), ["blocked", "blocked"])
        # Synapse has not checked yet that it is an invite.
        done = self.api.callbacks["federated_user_may_invite"](invite(EVE, None))
        self.assertEqual(self.successResultOf(defer.ensureDeferred(done)), NOT_SPAM)
        self.assertEqual(len(self.web.asked), 2)

    def test_an_invite_of_another_server_passes_when_stonechat_does_not_answer(self) -> None:
        self.blocked = {SAM}
        self.web.answer = refuse
        with self.warning("does not answer (blocked: connection refused)"):
            self.assertEqual(self.federated_may_invite(EVE, SAM), NOT_SPAM)
        self.assertEqual(self.web.paths(), ["blocked"])

    def test_an_invite_of_another_server_waits_for_stonechat_once_and_half_a_second(self) -> None:
        self.web.answer = lambda *_: silence()
        done = self.api.callbacks["federated_user_may_invite"](invite(EVE, SAM))
        asked = defer.ensureDeferred(done)
        self.clock.advance(0.49)
        self.assertNoResult(asked)
        with self.warning("no answer within 0.5 s"):
            self.clock.advance(0.02)
        self.assertEqual(self.successResultOf(asked), NOT_SPAM)
        self.assertEqual(self.may_invite(EVE, SAM), NOT_SPAM)
        self.assertEqual(self.web.paths(), ["blocked"])

    def test_a_synapse_without_the_federated_callback_asks_the_other_one(self) -> None:
        self.module, self.api, self.clock = self.make_module(OldApi())
        self.web = self.api.http_client
        self.web.answer = self.answer
        self.blocked = {SAM}
        self.assertNotIn("federated_user_may_invite", self.api.callbacks)
        self.assertEqual(self.may_invite(EVE, SAM), Codes.FORBIDDEN)

    def test_a_name_of_any_length_neither_reaches_stonechat_nor_begins_a_pause(self) -> None:
        # Synapse takes a name of 12 MiB here; Stonechat would refuse it, and be taken for silent.
        self.assertEqual(self.may_invite(ALICE, f"@{'a' * 12_000_000}:stone.test"), NOT_SPAM)
        self.assertEqual(self.may_invite(ALICE, "@ü:stone.test"), NOT_SPAM)
        self.assertEqual(self.web.asked, [])

    def test_without_a_token_everything_passes_and_one_warning_says_why(self) -> None:
        path = self.token_file()
        path.unlink()
        self.blocked = {SAM}
        given = StonechatModule.parse_config({"url": URL, "token_file": str(path)})
        with self.warning(f"has no token: {path} is not there"):
            self.module, self.api, self.clock = self.make_module(given=given)
            self.web = self.api.http_client
            self.web.answer = self.answer
            for _ in range(10):
                content = direct(SAMS, initial_state=[])
                self.successResultOf(self.create(content))
                # What needs no answer is done all the same.
                self.assertEqual(content, direct(SAMS))
                self.assertEqual(self.may_invite(ALICE, SAM), NOT_SPAM)
                self.assertEqual(self.federated_may_invite(EVE, SAM), NOT_SPAM)
                self.clock.advance(REPORT_AGAIN)
                self.report()
        self.assertEqual(self.web.asked, [])

        # It appears, and the module works without a restart of Synapse.
        path.write_text(TOKEN, encoding="utf-8")
        path.chmod(0o640)
        self.clock.advance(READ_EVERY)
        self.report()
        self.assertEqual(self.web.paths(), ["module"])
        self.assertEqual(self.may_invite(ALICE, SAM), Codes.FORBIDDEN)
        self.assertEqual(self.web.headers[-1], {b"Authorization": [f"Bearer {TOKEN}".encode()]})

    def test_the_token_file_is_read_on_another_thread_and_not_at_every_look(self) -> None:
        reads: list[defer.Deferred[Any]] = []

        def defer_to_thread(_: Any) -> defer.Deferred[Any]:
            reads.append(defer.Deferred())
            return reads[-1]

        self.api.defer_to_thread = defer_to_thread  # type: ignore[assignment]
        self.report()
        self.assertEqual(reads, [])
        self.clock.advance(READ_EVERY)
        looking = defer.ensureDeferred(self.module.look_after_itself())
        # While a disk hangs, everything goes on with the token that was there.
        self.assertNoResult(looking)
        self.assertEqual(self.may_invite(ALICE, KIM), NOT_SPAM)
        self.assertEqual(self.web.paths(), ["module", "blocked"])
        self.report()
        self.assertEqual(len(reads), 1)
        reads[0].callback(TOKEN[::-1])
        self.successResultOf(looking)
        self.may_invite(ALICE, KIM)
        token = f"Bearer {TOKEN[::-1]}".encode()
        self.assertEqual(self.web.headers[-1], {b"Authorization": [token]})

    def test_an_owner_who_was_put_in_is_invited_once_without_another_question(self) -> None:
        self.successResultOf(self.create(direct(SAMS, KIM)))
        # A block on another handle of his must not show here.
        self.blocked = {SAM, KIM}
        self.assertEqual(self.may_invite(ALICE, SAM), NOT_SPAM)
        self.assertEqual(self.may_invite(ALICE, KIM), NOT_SPAM)
        self.assertEqual(self.web.paths(), ["introduce"])
        self.assertEqual(self.may_invite(ALICE, SAM), Codes.FORBIDDEN)
        self.successResultOf(self.create(direct(SAMS)))
        self.clock.advance(121)
        self.assertEqual(self.may_invite(ALICE, SAM), Codes.FORBIDDEN)

    def test_the_module_reports_itself_until_it_is_heard_and_then_each_minute(self) -> None:
        self.assertEqual(len(self.api.background), 1)
        self.web.answer = refuse
        with self.warning("does not answer (module: connection refused)"):
            self.report()
        self.clock.advance(REPORT_AGAIN)
        self.web.answer = lambda *_: {}
        self.report()
        self.report()
        self.assertEqual(self.web.paths(), ["module", "module"])
        about = self.web.asked[-1][1]
        self.assertEqual(sorted(about), ["called", "synapse", "version", "worker"])
        self.assertEqual((about["worker"], about["called"]), ("main", False))
        self.clock.advance(REPORT_EVERY)
        self.report()
        self.assertEqual(len(self.web.asked), 3)

    def test_after_a_question_that_was_not_answered_a_report_follows_soon(self) -> None:
        self.web.answer = lambda *_: {}
        self.report()
        self.web.answer = refuse
        with self.warning("does not answer (introduce: connection refused)"):
            self.successResultOf(self.create(direct(SAMS)))
        self.web.answer = self.answer
        self.clock.advance(REPORT_AGAIN)
        self.report()
        self.assertEqual(self.web.paths(), ["module", "introduce", "module"])
        content = direct(SAMS)
        self.successResultOf(self.create(content))
        self.assertEqual(content, direct(SAM))

    def deactivate(self, user: str, *, gone: bool = True) -> None:
        changed = self.module.on_user_deactivation_status_changed(user, gone, False)  # noqa: FBT003
        self.successResultOf(defer.ensureDeferred(changed))

    def test_stonechat_is_told_of_an_account_that_is_gone_until_it_knows(self) -> None:
        self.web.answer = lambda *_: {}
        self.report()
        self.web.asked.clear()
        self.web.answer = refuse
        self.deactivate(SAM)
        self.deactivate(KIM)
        with self.warning("does not answer (deactivated: connection refused)"):
            self.report()
        self.assertEqual(self.web.asked, [("deactivated", {"user": SAM})])
        self.web.answer = lambda *_: {}
        self.report()
        self.report()
        self.assertEqual(
            self.web.asked[1:], [("deactivated", {"user": SAM}), ("deactivated", {"user": KIM})]
        )

    def test_an_account_that_stonechat_refuses_holds_up_no_other(self) -> None:
        def refuse_sam(_: str, body: dict[str, Any]) -> object:
            if body.get("user") == SAM:
                raise HttpResponseException(400, "Bad Request", b"{}")
            return {}

        self.web.answer = refuse_sam
        self.report()
        self.web.asked.clear()
        self.deactivate(SAM)
        self.deactivate(KIM)
        with self.warning(f"refuses to erase {SAM}: 400"):
            self.report()
        self.report()
        self.assertEqual(
            self.web.asked, [("deactivated", {"user": SAM}), ("deactivated", {"user": KIM})]
        )

    def test_a_ghost_and_an_account_that_came_back_are_not_reported(self) -> None:
        self.web.answer = lambda *_: {}
        self.report()
        self.web.asked.clear()
        self.deactivate(SAMS)
        self.deactivate(KIM)
        self.deactivate(KIM, gone=False)
        self.report()
        self.assertEqual(self.web.asked, [])

    def test_no_number_of_accounts_fills_the_memory(self) -> None:
        for number in range(MAX_DEACTIVATED):
            self.deactivate(f"@user{number}:stone.test")
        with self.warning("too many accounts were deactivated"):
            self.deactivate(SAM)

    def test_the_module_reports_itself_when_doctor_makes_a_room(self) -> None:
        self.api.worker_name = "generic1"
        self.web.answer = lambda *_: {}
        self.report()
        self.successResultOf(self.create({"invite": [SAM]}, by="@_dm_.check:stone.test"))
        self.assertEqual(len(self.api.background), 2)
        # It says that it was called until that is heard, and then no longer.
        self.web.answer = refuse
        with self.warning("does not answer (module: connection refused)"):
            self.report()
        self.web.answer = lambda *_: {}
        for wait in (REPORT_AGAIN, REPORT_EVERY):
            self.clock.advance(wait)
            self.report()
        self.assertEqual(self.web.paths(), ["module"] * 4)
        called = [about["called"] for _, about in self.web.asked]
        self.assertEqual(called, [False, True, True, False])
        self.assertEqual(self.web.asked[-1][1]["worker"], "generic1")
