"""What a request to create a room asks for, and what becomes of it.

Pure: a request in, a question or a changed request out. Every field is the client's and may be
anything. What is malformed is left alone: Synapse has its own words for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_HANDLES = 10
"""A room that names more handles is left to the ghosts: ten introduce, the others decline."""
MOST_PEOPLE = 1000
"""How many people are asked about at most, besides handles."""

ENCRYPTION = "m.room.encryption"
MEGOLM = "m.megolm.v1.aes-sha2"
POWER_LEVELS = "m.room.power_levels"
TRUSTED = "trusted_private_chat"

_PREFIX = "@_dm_"
_HANDLE = re.compile(r"[a-z0-9_]{1,64}")
_MATRIX_ID = re.compile(r"@[!-9;-~]*:[!-~]+")
_LONGEST = 255


@dataclass(frozen=True)
class Question:
    """What Stonechat is asked about a room that is being created."""

    asker: str
    """Who creates the room."""
    ghosts: tuple[str, ...]
    """The ghosts invited, as Stonechat writes them, each once."""
    people: tuple[str, ...]
    """Who else is invited, each once."""
    direct: bool
    """Whether it is a chat of two."""
    encrypted: bool
    """Whether it is encrypted from its first moment."""


def is_ours(user: str, server_name: str) -> bool:
    """Whether a user is one of Stonechat's: a ghost, the bot, or one without a purpose."""
    return user.startswith(_PREFIX) and user.partition(":")[2] == server_name


def ghost(user: str, server_name: str) -> str | None:
    """Tell the ghost that is meant, if one is. A handle has no case, though a Matrix ID has."""
    localpart, _, server = user.partition(":")
    lower = localpart.lower()
    name = lower.removeprefix(_PREFIX)
    if server != server_name or name == lower:
        return None
    if not _HANDLE.fullmatch(name) or not name.strip("_"):
        return None
    return f"{lower}:{server}"


def invited(content: Mapping[str, Any]) -> list[str]:
    """List who is invited by Matrix ID. Nobody, if the list is not what it should be."""
    invite = content.get("invite")
    if isinstance(invite, list) and all(isinstance(user, str) for user in invite):
        return list(invite)
    return []


def question(content: Mapping[str, Any], asker: str, server_name: str) -> Question | None:
    """Tell what there is to ask about this room, if there is anything."""
    ghosts: dict[str, None] = {}
    people: dict[str, None] = {}
    for user in invited(content):
        if found := ghost(user, server_name):
            ghosts[found] = None
        elif user != asker and not is_ours(user, server_name) and _is_matrix_id(user):
            people[user] = None
    if len(ghosts) > MOST_HANDLES:
        ghosts.clear()
    if not ghosts and not people:
        return None
    return Question(
        asker=asker,
        ghosts=tuple(ghosts),
        people=tuple(people)[:MOST_PEOPLE],
        direct=content.get("is_direct") is True,
        encrypted=is_encrypted(content),
    )


def is_encrypted(content: Mapping[str, Any]) -> bool:
    """Whether the request asks for encryption."""
    return any(event.get("type") == ENCRYPTION for event in _room_state(content))


def encrypt_direct(content: dict[str, Any], server_name: str) -> None:
    """Add encryption to a direct room that invites one of ours and does not ask for it."""
    if content.get("is_direct") is not True or is_encrypted(content):
        return
    if not any(_is_near(user, server_name) for user in invited(content)):
        return
    state = content.get("initial_state")
    if state is not None and not isinstance(state, list):
        return
    event = {"type": ENCRYPTION, "state_key": "", "content": {"algorithm": MEGOLM}}
    content["initial_state"] = [*(state or []), event]


def put_owners(
    content: dict[str, Any], asker: str, owners: Mapping[str, str], server_name: str
) -> list[str]:
    """Put owners in the places of their ghosts, and say whom that invites.

    `owners` maps ghosts to owners. A ghost stays where the change would break the request.
    """
    replaced: dict[str, str] = {}
    users = invited(content)
    for user in users:
        owner = owners.get(ghost(user, server_name) or "")
        if owner and owner != asker and not _clashes(content, user, owner):
            replaced[user] = owner
    if not replaced:
        return []

    there = {user for user in users if user not in replaced}
    invite: list[str] = []
    for user in users:
        owner = replaced.get(user)
        if owner is None:
            invite.append(user)
        elif owner not in there:
            # Invited by both handles, or by handle and by name: one invite is enough.
            there.add(owner)
            invite.append(owner)
    content["invite"] = invite

    for levels in _power_levels(content):
        levels["users"] = _renamed(levels["users"], replaced)
    creation = content.get("creation_content")
    if isinstance(creation, dict) and isinstance(creation.get("additional_creators"), list):
        creators = [_rename(user, replaced) for user in creation["additional_creators"]]
        content["creation_content"] = {**creation, "additional_creators": _each_once(creators)}
    return sorted(set(replaced.values()))


def _is_matrix_id(user: str) -> bool:
    """Whether this can be somebody; Synapse refuses what cannot."""
    return len(user) <= _LONGEST and _MATRIX_ID.fullmatch(user) is not None


def _is_near(user: str, server_name: str) -> bool:
    return is_ours(user, server_name) or ghost(user, server_name) is not None


def _room_state(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """List the initial state that concerns the room as a whole."""
    state = content.get("initial_state")
    for event in state if isinstance(state, list) else []:
        if isinstance(event, dict) and event.get("state_key", "") == "":
            yield event


def _power_levels(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """List the contents that give people power by name."""
    places = [content.get("power_level_content_override")]
    places += [e.get("content") for e in _room_state(content) if e.get("type") == POWER_LEVELS]
    for levels in places:
        if isinstance(levels, dict) and isinstance(levels.get("users"), dict):
            yield levels


def _clashes(content: Mapping[str, Any], user: str, owner: str) -> bool:
    """Whether the owner would be a creator of the room and have a level too.

    From room version 12 on that is an error, and without us it would be none.
    """
    creation = content.get("creation_content")
    named = creation.get("additional_creators") if isinstance(creation, dict) else None
    creator = content.get("preset") == TRUSTED or (isinstance(named, list) and user in named)
    return creator and any(owner in levels["users"] for levels in _power_levels(content))


def _renamed(users: dict[str, Any], replaced: Mapping[str, str]) -> dict[str, Any]:
    """Give the ghosts' levels to their owners. A level that an owner has of their own stays."""
    renamed = {user: level for user, level in users.items() if user not in replaced}
    for user, level in users.items():
        if user in replaced:
            renamed.setdefault(replaced[user], level)
    return renamed


def _rename(user: Any, replaced: Mapping[str, str]) -> Any:
    return replaced.get(user, user) if isinstance(user, str) else user


def _each_once(items: list[Any]) -> list[Any]:
    once: list[Any] = []
    for item in items:
        if item not in once:
            once.append(item)
    return once
