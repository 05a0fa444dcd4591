"""Reads requests to create a room, and changes them.

Pure: a request in, a question or a changed request out. Every field comes from the client and may
be anything. Malformed fields are left alone: Synapse refuses them with its own message.

Synapse calls this on its only thread, before it has checked anything, with up to 12.5 MiB of JSON.
So `is_bounded` looks at the lengths of the lists first, and a longer request stays as it is. In the
others, only names of up to 255 characters and single keys of objects are read; nested JSON is not
walked, compared or copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TypeGuard

MAX_INVITEES = 100
"""Maximum number of invitees in a request that the module looks at."""
MAX_STATE_EVENTS = 100
"""Maximum number of initial state events in a request that the module looks at."""
MAX_CREATORS = 100
"""Maximum number of additional creators in a request that the module looks at."""
MAX_HANDLES = 10
"""Maximum number of handles. Beyond it the ghosts are invited, and ten of them introduce."""
MAX_ID_LENGTH = 255
"""Maximum length of a Matrix ID."""

ENCRYPTION = "m.room.encryption"
MEGOLM = "m.megolm.v1.aes-sha2"
POWER_LEVELS = "m.room.power_levels"
TRUSTED = "trusted_private_chat"

_PREFIX = "@_dm_"
_HANDLE = re.compile(r"[a-z0-9_]{1,64}")
_MATRIX_ID = re.compile(r"@[!-9;-~]*:[!-~]+")


@dataclass(frozen=True)
class Question:
    """What Stonechat is asked about a room that is being created."""

    asker: str
    """The person who creates the room."""
    ghosts: tuple[str, ...]
    """The invited ghosts, as Stonechat writes them, each once."""
    people: tuple[str, ...]
    """The other people invited, each once."""
    direct: bool
    """Whether it is a direct chat."""
    encrypted: bool
    """Whether it is encrypted from its first event on."""


def is_bounded(content: Mapping[str, Any]) -> bool:
    """Return whether a request is small enough for the module to look at.

    Reads three lengths and no element.
    """
    return (
        _fits(content.get("invite"), MAX_INVITEES)
        and _fits(content.get("initial_state"), MAX_STATE_EVENTS)
        and _fits(_named_creators(content), MAX_CREATORS)
    )


def is_ours(user: str, server_name: str) -> bool:
    """Return whether a user is one of Stonechat's: a ghost, the bot, or an unused name."""
    return user.startswith(_PREFIX) and user.partition(":")[2] == server_name


def is_matrix_id(user: Any) -> TypeGuard[str]:
    """Return whether a value can be a user's Matrix ID. Synapse refuses what cannot."""
    return _is_name(user) and _MATRIX_ID.fullmatch(user) is not None


def ghost(user: str, server_name: str) -> str | None:
    """Return the ghost that this user is, if any. Unlike a Matrix ID, a handle ignores case."""
    localpart, _, server = user.partition(":")
    lower = localpart.lower()
    name = lower.removeprefix(_PREFIX)
    if server != server_name or name == lower:
        return None
    if not _HANDLE.fullmatch(name) or not name.strip("_"):
        return None
    return f"{lower}:{server}"


def question(content: Mapping[str, Any], asker: str, server_name: str) -> Question | None:
    """Return the question to ask Stonechat about this room, if there is one."""
    if not is_bounded(content):
        return None
    ghosts: dict[str, None] = {}
    people: dict[str, None] = {}
    for user in _invited(content):
        if found := ghost(user, server_name):
            ghosts[found] = None
        elif user != asker and not is_ours(user, server_name) and is_matrix_id(user):
            people[user] = None
    if len(ghosts) > MAX_HANDLES:
        ghosts.clear()
    if not ghosts and not people:
        return None
    return Question(
        asker=asker,
        ghosts=tuple(ghosts),
        people=tuple(people),
        direct=content.get("is_direct") is True,
        encrypted=is_encrypted(content),
    )


def is_encrypted(content: Mapping[str, Any]) -> bool:
    """Return whether a request that is bounded asks for encryption."""
    return any(event.get("type") == ENCRYPTION for event in _room_state(content))


def encrypt_direct(content: dict[str, Any], server_name: str) -> None:
    """Add encryption to a direct chat with one of our users that does not ask for it."""
    if content.get("is_direct") is not True or not is_bounded(content) or is_encrypted(content):
        return
    if not any(_is_near(user, server_name) for user in _invited(content)):
        return
    state = content.get("initial_state")
    if state is not None and not isinstance(state, list):
        return
    if state and len(state) >= MAX_STATE_EVENTS:
        # With one more event the request would exceed the bounds that `put_owners` checks.
        return
    event = {"type": ENCRYPTION, "state_key": "", "content": {"algorithm": MEGOLM}}
    content["initial_state"] = [*(state or []), event]


def put_owners(
    content: dict[str, Any], asker: str, owners: Mapping[str, str], server_name: str
) -> list[str]:
    """Put owners in the places of their ghosts, and return the owners.

    `owners` maps ghosts to owners. A ghost stays if the change would break the request.
    """
    if not is_bounded(content):
        return []
    users = _invited(content)
    levels = list(_levels_of_users(content))
    have_level = {owner for owner in owners.values() if any(owner in by_user for by_user in levels)}
    named = _named_creators(content) or []
    creators = {user for user in named if _is_name(user)}
    replaced: dict[str, str] = {}
    for user in users:
        owner = owners.get(ghost(user, server_name) or "")
        if not owner or owner == asker:
            continue
        # From room version 12 on, Synapse refuses a creator who also has a power level.
        is_creator = content.get("preset") == TRUSTED or user in creators
        if not (is_creator and owner in have_level):
            replaced[user] = owner
    if not replaced:
        return []

    content["invite"] = _renamed_invitees(users, replaced)
    for by_user in levels:
        _rename_levels(by_user, replaced)
    if not creators.isdisjoint(replaced):
        content["creation_content"]["additional_creators"] = _renamed_creators(named, replaced)
    return sorted(set(replaced.values()))


def _fits(value: Any, most: int) -> bool:
    return not isinstance(value, list) or len(value) <= most


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_ID_LENGTH


def _is_near(user: str, server_name: str) -> bool:
    return is_ours(user, server_name) or ghost(user, server_name) is not None


def _invited(content: Mapping[str, Any]) -> list[str]:
    """Return the users on the invite list, or nobody if the list is malformed."""
    invite = content.get("invite")
    if isinstance(invite, list) and all(_is_name(user) for user in invite):
        return list(invite)
    return []


def _named_creators(content: Mapping[str, Any]) -> list[Any] | None:
    creation = content.get("creation_content")
    named = creation.get("additional_creators") if isinstance(creation, dict) else None
    return named if isinstance(named, list) else None


def _room_state(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the initial state events that concern the room as a whole."""
    state = content.get("initial_state")
    for event in state if isinstance(state, list) else []:
        if isinstance(event, dict) and event.get("state_key", "") == "":
            yield event


def _levels_of_users(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects that map users to power levels."""
    places = [content.get("power_level_content_override")]
    places += [e.get("content") for e in _room_state(content) if e.get("type") == POWER_LEVELS]
    for levels in places:
        by_user = levels.get("users") if isinstance(levels, dict) else None
        if isinstance(by_user, dict):
            yield by_user


def _renamed_invitees(users: list[str], replaced: Mapping[str, str]) -> list[str]:
    """Return the invite list with owners for ghosts, each person once."""
    there = {user for user in users if user not in replaced}
    invite: list[str] = []
    for user in users:
        owner = replaced.get(user)
        if owner is None:
            invite.append(user)
        elif owner not in there:
            there.add(owner)
            invite.append(owner)
    return invite


def _rename_levels(by_user: dict[str, Any], replaced: Mapping[str, str]) -> None:
    """Give the ghosts' levels to their owners. An owner who has a level already keeps it.

    Changes the object in place: it may have a million entries.
    """
    for user, owner in replaced.items():
        if user in by_user:
            level = by_user.pop(user)
            by_user.setdefault(owner, level)


def _renamed_creators(named: list[Any], replaced: Mapping[str, str]) -> list[Any]:
    """Return the creators with owners for ghosts, each once. Other values stay."""
    seen: set[str] = set()
    creators: list[Any] = []
    for value in named:
        if not _is_name(value):
            creators.append(value)
            continue
        name = replaced.get(value, value)
        if name not in seen:
            seen.add(name)
            creators.append(name)
    return creators
