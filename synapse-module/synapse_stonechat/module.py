"""The callbacks that Synapse calls."""

from __future__ import annotations

import inspect
import logging
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any, Literal, cast

from synapse.module_api import NOT_SPAM, ModuleApi
from synapse.module_api.errors import Codes, SynapseError

from synapse_stonechat import config, rooms
from synapse_stonechat.client import Answer, Stonechat
from synapse_stonechat.expected import Expected
from synapse_stonechat.failures import Failures
from synapse_stonechat.secret import Token
from synapse_stonechat.version import VERSION

if TYPE_CHECKING:
    from synapse.events import EventBase
    from synapse.module_api import Requester

    from synapse_stonechat.clock import Clock

logger = logging.getLogger(__name__)

LOOK_EVERY_MS = 5_000
"""How often the module checks whether to report or to read its token file again."""
READ_EVERY = 10.0
"""Minimum interval between two reads of the token file, in seconds."""
REPORT_EVERY = 60.0
"""How often the module reports while Stonechat answers, in seconds."""
REPORT_AGAIN = 10.0
"""How often it reports otherwise, in seconds."""
CHECKER = "@_dm_.check:"
"""The user as which `stonechat doctor` makes a room, to see whether the module is called."""
MAIN = "main"
"""The name of Synapse's main process, as in its `instance_map`; it is no worker and has none."""
MAX_DEACTIVATED = 1000
"""Maximum number of deactivated accounts that Stonechat is still to be told of."""
INVITE_SETTINGS = ("m.invite_permission_config", "org.matrix.msc4155.invite_permission_config")
"""Account data with which people have the server refuse invites."""


class StonechatModule:
    """The module, as `homeserver.yaml` names it."""

    @staticmethod
    def parse_config(given: dict[str, Any]) -> config.Config:
        """Read the module's configuration, or refuse it with a message."""
        return config.parse(given)

    def __init__(self, given: config.Config, api: ModuleApi, clock: Clock | None = None) -> None:
        """Register the callbacks, and begin to report to Stonechat."""
        if clock is None:
            from twisted.internet import reactor  # noqa: PLC0415 (Synapse has chosen one by now)

            clock = cast("Clock", reactor)
        self._api = api
        self._server_name = api.server_name
        self._clock = clock
        self._token = Token(given.token_file)
        self._token_read_at = clock.seconds()
        self._stonechat = Stonechat(api.http_client, given, self._token, self._clock)
        self._expected = Expected(self._clock)
        self._failures = Failures(self._clock)
        self._heard = False
        self._called = False
        self._deactivated: dict[str, None] = {}
        self._last_report = -REPORT_EVERY
        self._register()
        api.delayed_background_call(0, self.look_after_itself, desc="stonechat_report")
        api.looping_background_call(
            self.look_after_itself,
            LOOK_EVERY_MS,
            desc="stonechat_report",
            run_on_all_instances=True,
        )

    def _register(self) -> None:
        self._api.register_third_party_rules_callbacks(
            on_create_room=self.on_create_room,
            on_user_deactivation_status_changed=self.on_user_deactivation_status_changed,
        )
        register = self._api.register_spam_checker_callbacks
        if "federated_user_may_invite" in inspect.signature(register).parameters:
            register(
                user_may_invite=self.user_may_invite,
                federated_user_may_invite=self.federated_user_may_invite,
            )
        else:
            # Before 1.133, Synapse calls `user_may_invite` for inviters of other servers too.
            register(user_may_invite=self.user_may_invite)

    async def on_create_room(
        self,
        requester: Requester,
        content: dict[str, Any],
        is_admin: bool,  # noqa: FBT001 (Synapse's signature)
    ) -> None:
        """Put owners in the places of their ghosts.

        Raises only if somebody is invited who has blocked the creator. Otherwise the room would be
        made, the invite refused, and an empty room left over.
        """
        unwanted: list[str] = []
        try:
            unwanted = await self._prepare(content, requester.user.to_string(), is_admin=is_admin)
        except Exception as error:  # noqa: BLE001
            self._failures.caught("on_create_room", error)
        if unwanted:
            raise SynapseError(
                403, f"{unwanted[0]} cannot be invited by you", errcode=Codes.FORBIDDEN
            )

    async def _prepare(self, content: dict[str, Any], asker: str, *, is_admin: bool) -> list[str]:
        """Change the request, and return the invitees who do not want to be invited by `asker`."""
        if rooms.is_ours(asker, self._server_name):
            # Ghosts make rooms too, and nothing in those is to be changed.
            if asker.startswith(CHECKER):
                self._called = True
                self._last_report = -REPORT_EVERY
                self._api.delayed_background_call(
                    0, self.look_after_itself, desc="stonechat_report"
                )
            return []
        rooms.encrypt_direct(content, self._server_name)
        question = rooms.question(content, asker, self._server_name)
        if question is None:
            return []
        if question.ghosts:
            answer = await self._stonechat.introduce(question)
        else:
            blocked = await self._stonechat.blocked(asker, question.people)
            answer = None if blocked is None else Answer(owners={}, blocked=blocked)
        if answer is None:
            # Stonechat had its time; the invites of this room do not wait again.
            self._expected.add(asker, question.people)
            return []
        if answer.blocked and not is_admin:
            return sorted(answer.blocked)
        owners = {
            ghost: owner
            for ghost, owner in answer.owners.items()
            if await self._can_be_invited(owner)
        }
        put = rooms.put_owners(content, asker, owners, self._server_name)
        self._expected.add(asker, [*question.people, *put])
        return []

    async def _can_be_invited(self, owner: str) -> bool:
        """Return whether Synapse would let anybody invite this person.

        If it would not, creating the room would fail; a ghost can tell the asker instead.
        """
        if not self._api.is_mine(owner):
            return False
        info = await self._api.get_userinfo_by_id(owner)
        if info is None or info.is_deactivated:
            return False
        for kind in INVITE_SETTINGS:
            settings = await self._api.account_data_manager.get_global(owner, kind)
            if settings and (
                settings.get("default_action") == "block"
                or settings.get("blocked_users")
                or settings.get("blocked_servers")
            ):
                return False
        return True

    async def on_user_deactivation_status_changed(
        self,
        user_id: str,
        deactivated: bool,  # noqa: FBT001 (Synapse's signature)
        by_admin: bool,  # noqa: FBT001
    ) -> None:
        """Note an account that is gone, so that Stonechat releases what it had.

        Stonechat is told at once, or when it answers again. An admin has to tell it of those that
        are still noted when Synapse stops, and of those for which there was no room.
        """
        del by_admin  # it is gone, no matter who wanted it
        if rooms.is_ours(user_id, self._server_name):
            return
        if not deactivated:
            self._deactivated.pop(user_id, None)
            return
        if len(self._deactivated) >= MAX_DEACTIVATED:
            logger.warning("too many accounts were deactivated to tell Stonechat of %s", user_id)
            return
        self._deactivated[user_id] = None
        self._api.delayed_background_call(0, self.look_after_itself, desc="stonechat_report")

    async def user_may_invite(
        self, inviter: str, invitee: str, room_id: str
    ) -> Literal["NOT_SPAM"] | Codes:
        """Refuse an invite if the invitee has blocked the inviter."""
        del room_id  # Stonechat does not need to know the room
        try:
            return await self._may_invite(inviter, invitee)
        except Exception as error:  # noqa: BLE001
            self._failures.caught("user_may_invite", error)
            return NOT_SPAM

    async def federated_user_may_invite(self, event: EventBase) -> Literal["NOT_SPAM"] | Codes:
        """Refuse an invite from another server if the invitee has blocked the inviter.

        Synapse then calls `user_may_invite` for the same invite.
        """
        try:
            inviter, invitee = event.sender, event.get_state_key()
            said = await self._may_invite(inviter, invitee)
            if said == NOT_SPAM and rooms.is_matrix_id(invitee):
                self._expected.add(inviter, [invitee])
        except Exception as error:  # noqa: BLE001
            self._failures.caught("federated_user_may_invite", error)
            return NOT_SPAM
        return said

    async def _may_invite(self, inviter: Any, invitee: Any) -> Literal["NOT_SPAM"] | Codes:
        # Synapse has not checked the invitee's name yet: it can be megabytes long.
        if not (rooms.is_matrix_id(inviter) and rooms.is_matrix_id(invitee)):
            return NOT_SPAM
        if any(rooms.is_ours(user, self._server_name) for user in (inviter, invitee)):
            return NOT_SPAM
        if self._expected.take(inviter, invitee):
            return NOT_SPAM
        blocked = await self._stonechat.blocked(inviter, [invitee])
        return Codes.FORBIDDEN if blocked else NOT_SPAM

    async def look_after_itself(self) -> None:
        """Read the token again and report to Stonechat, each if it is time to."""
        try:
            await self._read_token()
            await self._report()
            await self._tell_of_deactivated()
        except Exception as error:  # noqa: BLE001
            self._failures.caught("look_after_itself", error)

    async def _read_token(self) -> None:
        now = self._clock.seconds()
        if now < self._token_read_at + READ_EVERY:
            return
        self._token_read_at = now
        # On a thread of its own: a disk that hangs would hold up everybody.
        self._token.take(await self._api.defer_to_thread(self._token.look))

    async def _report(self) -> None:
        """Tell Stonechat that the module is loaded, more often until it answers."""
        if self._token.value() is None:
            return
        now = self._clock.seconds()
        # After an unanswered question a report follows soon, and shows when Stonechat is back.
        well = self._heard and self._stonechat.answers()
        if now < self._last_report + (REPORT_EVERY if well else REPORT_AGAIN):
            return
        self._last_report = now
        called, self._called = self._called, False
        about = {
            "version": VERSION,
            "synapse": version_of("matrix-synapse"),
            "worker": self._api.worker_name or MAIN,
            "called": called,
        }
        self._heard = await self._stonechat.report(about)
        if called and not self._heard:
            self._called = True

    async def _tell_of_deactivated(self) -> None:
        """Tell Stonechat which accounts are gone, until it does not answer."""
        for user in list(self._deactivated):
            if not await self._stonechat.deactivated(user):
                return
            self._deactivated.pop(user, None)
