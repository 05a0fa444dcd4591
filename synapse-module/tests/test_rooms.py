from __future__ import annotations

import copy
from typing import Any

from twisted.trial import unittest

from synapse_stonechat import rooms

HERE = "stone.test"
ALICE, SAM, KIM = "@alice:stone.test", "@samuel:stone.test", "@kim:stone.test"
SAMS, KIMS, ROBS = "@_dm_sam:stone.test", "@_dm_kim:stone.test", "@_dm_rob:stone.test"
BOT = "@_dm_.bot:stone.test"
ENCRYPTED = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


def direct(*invite: Any, **more: Any) -> dict[str, Any]:
    """Make a room as Element's "Start chat" does."""
    return {
        "preset": "trusted_private_chat",
        "visibility": "private",
        "invite": list(invite),
        "is_direct": True,
        "initial_state": [ENCRYPTED],
    } | more


def put(content: dict[str, Any], **owners: str) -> list[str]:
    by_ghost = {f"@_dm_{handle}:{HERE}": owner for handle, owner in owners.items()}
    return rooms.put_owners(content, ALICE, by_ghost, HERE)


class QuestionTest(unittest.TestCase):
    def ask(self, content: dict[str, Any]) -> rooms.Question:
        question = rooms.question(content, ALICE, HERE)
        assert question is not None
        return question

    def test_a_direct_chat_by_handle(self) -> None:
        self.assertEqual(
            self.ask(direct(SAMS)),
            rooms.Question(ALICE, ghosts=(SAMS,), people=(), direct=True, encrypted=True),
        )

    def test_a_group_with_people_the_bot_and_a_name_twice(self) -> None:
        question = self.ask({"invite": [SAMS, KIM, BOT, KIMS, SAMS, KIM, ALICE]})
        self.assertEqual(question.ghosts, (SAMS, KIMS))
        self.assertEqual(question.people, (KIM,))
        self.assertFalse(question.direct or question.encrypted)

    def test_a_handle_has_no_case(self) -> None:
        self.assertEqual(self.ask(direct("@_dm_SAM:stone.test")).ghosts, (SAMS,))
        self.assertEqual(self.ask(direct("@_DM_Sam:stone.test", SAMS)).ghosts, (SAMS,))

    def test_what_is_no_ghost_of_ours_is_not_asked_for(self) -> None:
        others = ["@_dm_sam:elsewhere.org", "@dm_sam:stone.test", "@x_dm_sam:stone.test"]
        self.assertEqual(self.ask(direct(*others)).ghosts, ())
        self.assertEqual(self.ask(direct(*others)).people, tuple(others))
        for nobody in ["@_dm_:stone.test", "@_dm__:stone.test", "@_dm_a.b:stone.test", BOT]:
            self.assertIsNone(rooms.question(direct(nobody), ALICE, HERE), nobody)

    def test_rooms_without_anybody_are_not_asked_about(self) -> None:
        empty: list[dict[str, Any]] = [{}, {"invite": []}, {"invite": [ALICE]}, {"invite": None}]
        for content in empty:
            self.assertIsNone(rooms.question(content, ALICE, HERE))

    def test_nonsense_is_left_to_synapse(self) -> None:
        for invite in ["@_dm_sam:stone.test", [SAMS, 5], {SAMS: 1}, [None], 7]:
            content = {"invite": invite, "is_direct": True, "initial_state": "x"}
            before = copy.deepcopy(content)
            self.assertIsNone(rooms.question(content, ALICE, HERE))
            rooms.encrypt_direct(content, HERE)
            self.assertEqual(put(content, sam=SAM), [])
            self.assertEqual(content, before)

    def test_of_a_hundred_invitees_at_most_ten_handles_are_asked_for(self) -> None:
        crowd = [f"@guest{n}:stone.test" for n in range(rooms.MAX_INVITEES - 11)]
        ten = [f"@_dm_h{n}:stone.test" for n in range(10)]
        question = self.ask({"invite": crowd + ten})
        self.assertEqual(len(question.ghosts), 10)
        self.assertEqual(question.people, tuple(crowd))
        # One more, and it goes as without the module: ten ghosts introduce, one declines.
        question = self.ask({"invite": [*crowd, *ten, SAMS]})
        self.assertEqual(question.ghosts, ())
        self.assertIsNone(rooms.question({"invite": [*ten, SAMS]}, ALICE, HERE))

    def test_what_can_be_nobody_is_not_asked_about(self) -> None:
        odd = ["", "@", "sam", "@sam", "@a b:x", "@ü:stone.test"]
        self.assertIsNone(rooms.question({"invite": odd}, ALICE, HERE))
        self.assertEqual(self.ask({"invite": [*odd, KIM]}).people, (KIM,))

    def test_a_list_with_a_name_that_is_too_long_is_left_to_synapse(self) -> None:
        content = direct(SAMS, f"@{'a' * 300}:stone.test", initial_state=[])
        before = copy.deepcopy(content)
        self.assertIsNone(rooms.question(content, ALICE, HERE))
        rooms.encrypt_direct(content, HERE)
        self.assertEqual(put(content, sam=SAM), [])
        self.assertEqual(content, before)

    def test_third_party_invites_change_nothing(self) -> None:
        by_mail = [{"medium": "email", "address": "sam@example.org"}]
        self.assertIsNone(rooms.question({"invite_3pid": by_mail}, ALICE, HERE))
        content = direct(SAMS, invite_3pid=by_mail)
        self.assertEqual(put(content, sam=SAM), [SAM])
        self.assertEqual(content["invite_3pid"], by_mail)


class EncryptionTest(unittest.TestCase):
    def encrypted(self, content: dict[str, Any]) -> bool:
        rooms.encrypt_direct(content, HERE)
        return rooms.is_encrypted(content)

    def test_every_direct_room_with_one_of_ours_is_encrypted(self) -> None:
        for user in [SAMS, BOT, "@_dm_.check:stone.test", "@_dm_SAM:stone.test"]:
            content = direct(user, initial_state=[])
            self.assertTrue(self.encrypted(content), user)
            self.assertEqual(content["initial_state"], [ENCRYPTED])
        content = direct(SAMS)
        del content["initial_state"]
        self.assertTrue(self.encrypted(content))

    def test_what_is_there_stays_and_nothing_is_doubled(self) -> None:
        topic = {"type": "m.room.topic", "state_key": "", "content": {"topic": "boats"}}
        content = direct(SAMS, initial_state=[topic])
        self.assertTrue(self.encrypted(content))
        self.assertEqual(content["initial_state"], [topic, ENCRYPTED])
        self.assertTrue(self.encrypted(content))
        self.assertEqual(len(content["initial_state"]), 2)
        without_key = {key: ENCRYPTED[key] for key in ("type", "content")}
        content = direct(SAMS, initial_state=[without_key])
        self.assertTrue(self.encrypted(content))
        self.assertEqual(content["initial_state"], [without_key])

    def test_encryption_under_another_key_is_none(self) -> None:
        elsewhere = ENCRYPTED | {"state_key": "x"}
        content = direct(SAMS, initial_state=[elsewhere])
        self.assertTrue(self.encrypted(content))
        self.assertEqual(content["initial_state"], [elsewhere, ENCRYPTED])

    def test_other_rooms_are_left_as_they_are(self) -> None:
        self.assertFalse(self.encrypted(direct(KIM, initial_state=[])))
        self.assertFalse(self.encrypted({"invite": [SAMS]}))
        self.assertFalse(self.encrypted(direct(SAMS, initial_state={"type": "x"})))


class OwnersTest(unittest.TestCase):
    def test_the_owner_takes_the_ghosts_place(self) -> None:
        content = direct(SAMS)
        expected = direct(SAM)
        self.assertEqual(put(content, sam=SAM), [SAM])
        self.assertEqual(content, expected)

    def test_order_is_kept_and_who_stays_a_ghost_stays(self) -> None:
        content = {"invite": [KIM, SAMS, ROBS, BOT]}
        self.assertEqual(put(content, sam=SAM), [SAM])
        self.assertEqual(content["invite"], [KIM, SAM, ROBS, BOT])
        before = copy.deepcopy(content)
        self.assertEqual(put(content), [])
        self.assertEqual(content, before)

    def test_a_person_who_is_named_twice_is_invited_once(self) -> None:
        for invite in [[SAM, SAMS], [SAMS, SAM], [SAMS, ROBS], [SAMS, "@_dm_Sam:stone.test"]]:
            content = {"invite": list(invite)}
            self.assertEqual(put(content, sam=SAM, rob=SAM), [SAM])
            self.assertEqual(content["invite"], [SAM])

    def test_nobody_is_invited_to_their_own_room(self) -> None:
        content = direct(SAMS)
        self.assertEqual(put(content, sam=ALICE), [])
        self.assertEqual(content, direct(SAMS))

    def test_a_ghosts_power_becomes_its_owners(self) -> None:
        levels = {"users": {ALICE: 100, SAMS: 50}, "invite": 50}
        in_state = {"type": "m.room.power_levels", "content": {"users": {SAMS: 75}}}
        content = {
            "invite": [SAMS],
            "power_level_content_override": levels,
            "initial_state": [in_state],
            "creation_content": {"additional_creators": [SAMS, KIM, 5], "m.federate": False},
        }
        put(content, sam=SAM)
        override: Any = content["power_level_content_override"]
        self.assertEqual(override, {"users": {ALICE: 100, SAM: 50}, "invite": 50})
        self.assertEqual(in_state["content"], {"users": {SAM: 75}})
        creation: Any = content["creation_content"]
        self.assertEqual(creation, {"additional_creators": [SAM, KIM, 5], "m.federate": False})

    def test_a_level_of_the_owners_own_stays(self) -> None:
        content = {"invite": [SAMS], "power_level_content_override": {"users": {SAMS: 50, SAM: 0}}}
        put(content, sam=SAM)
        self.assertEqual(content["power_level_content_override"], {"users": {SAM: 0}})

    def test_a_change_that_would_break_the_request_is_not_made(self) -> None:
        # In room version 12 nobody can be a creator and have a level as well.
        ways: list[dict[str, Any]] = [
            {"preset": "trusted_private_chat"},
            {"preset": None, "creation_content": {"additional_creators": [SAMS]}},
        ]
        for more in ways:
            content = direct(SAMS, power_level_content_override={"users": {SAM: 50}}, **more)
            before = copy.deepcopy(content)
            self.assertEqual(put(content, sam=SAM), [])
            self.assertEqual(content, before)

    def test_malformed_levels_and_creators_are_left_alone(self) -> None:
        malformed: list[Any] = [None, 5, "x", [], {"users": []}, {"users": None}]
        for bad in malformed:
            content = direct(SAMS, power_level_content_override=bad, creation_content=bad)
            put(content, sam=SAM)
            self.assertEqual(content["invite"], [SAM])
            self.assertEqual(content["power_level_content_override"], bad)
