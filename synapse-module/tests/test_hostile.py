"""Requests that are made to hold up Synapse, which has one thread for everybody.

Time is told in seconds of this thread's CPU: other work on the machine does not count.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer
from twisted.trial import unittest

from synapse_stonechat import rooms
from tests.fakes import QuietTest
from tests.test_rooms import ALICE, HERE, SAM, SAMS

LIMIT = 0.05
"""How long a request may hold up Synapse, in seconds. The slowest here takes 2 ms."""
MAX_REQUEST_SIZE = 200 * 65_536
"""Bytes of the largest body that Synapse accepts by default."""
ROOM_FOR_MORE = 5000
"""Bytes of a body that are left for everything but its largest part."""
FULL = MAX_REQUEST_SIZE - ROOM_FOR_MORE


Requests = Iterator[dict[str, str]]
"""Fields of requests to create a room, each as JSON. One by one: each fills a body."""


def repeated(part: str, size: int = FULL) -> str:
    """Return a JSON list that repeats one element."""
    return f"[{','.join([part] * (size // (len(part) + 1)))}]"


def numbered(part: str, size: int = FULL) -> str:
    """Return a JSON list of different elements."""
    return f"[{','.join(part % n for n in range(size // (len(part) + 8)))}]"


def levels(size: int, user: str = '"@u%d:stone.test":1') -> str:
    """Return power levels of very many users, the owner and the ghost among them."""
    many = numbered(user, size)[1:-1]
    return f'{{"users":{{"{SAMS}":75,"{SAM}":50,{many}}}}}'


def size(value: Any) -> list[int]:
    """Return the lengths of what the module could change."""
    creators = value.get("additional_creators", []) if isinstance(value, dict) else []
    return [len(value) if isinstance(value, (list, dict)) else 0, len(creators)]


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


GHOST = f'"{SAMS}"'
STATE = '{"type":"m.room.power_levels","content":%s}'
PART = FULL // 100 - 100
"""Bytes that each of a hundred elements can have."""


def beyond_the_bounds() -> Requests:
    """Yield requests that stay as they are."""
    yield {"invite": repeated(GHOST)}
    yield {"invite": repeated("1")}
    yield {"invite": numbered('"@u%d:x"')}
    yield {"invite": f"[{GHOST}]", "initial_state": repeated("{}")}
    yield {
        "invite": f"[{GHOST}]",
        "creation_content": f'{{"additional_creators":{numbered(chr(34) + "%x" + chr(34))}}}',
    }
    yield {
        "invite": repeated(GHOST, FULL // 3),
        "initial_state": repeated("{}", FULL // 3),
        "creation_content": f'{{"additional_creators":{repeated(GHOST, FULL // 3)}}}',
    }


def impossible_names() -> Requests:
    """Yield requests with a list from which Synapse could invite nobody."""
    yield {"invite": f'[{GHOST},"@{"a" * (FULL - 100)}:stone.test"]'}
    # It grows when it is lower-cased.
    yield {"invite": f'[{GHOST},"@{"İ" * (FULL // 2 - 100)}:stone.test"]'}
    yield {"invite": repeated(f'"@_dm_{"A" * PART}:stone.test"')}
    yield {"invite": f"[{GHOST},5,null,{{}},{repeated('{}', FULL - 100)}]"}


def within_the_bounds() -> Requests:
    """Yield requests in which the owner takes the ghost's place all the same."""
    yield {"power_level_content_override": levels(FULL)}
    yield {"initial_state": f"[{','.join([STATE % levels(PART)] * 100)}]"}
    yield {
        "initial_state": f"[{','.join([STATE % deep(900)] * 50)},"
        f'{{"type":{repeated("[]", FULL // 3)},"state_key":{repeated("[]", FULL // 3)}}}]'
    }
    yield {
        "creation_content": f'{{"additional_creators":[{GHOST},'
        f"{','.join([repeated(deep(900), PART - 10)] * 99)}]}}",
    }
    yield {
        "creation_content": f'{{"additional_creators":[{GHOST},'
        f"{','.join([repeated('1', PART - 10)] * 99)}]}}",
    }
    yield {"creation_content": f'{{"additional_creators":[{GHOST}],{levels(FULL - 200)[1:]}'}
    yield {"preset": repeated("{}")}
    yield {"invite_3pid": repeated("{}")}


class TimeTest(QuietTest):
    """The whole callback, as Synapse calls it, with an answer that comes at once."""

    def setUp(self) -> None:
        super().setUp()
        # Synapse, too, collects garbage at any moment.
        gc.disable()
        self.addCleanup(gc.enable)

    def takes(self, request: dict[str, str]) -> dict[str, Any]:
        """Pass a request through the module, and return it as changed."""
        whole = {"is_direct": "true", "invite": f"[{','.join([GHOST] * 100)}]"} | request
        body = f"{{{','.join(f'{json.dumps(key)}:{value}' for key, value in whole.items())}}}"
        self.assertLessEqual(len(body.encode()), MAX_REQUEST_SIZE)
        content: dict[str, Any] = json.loads(body)
        _, api, _ = self.make_module()
        api.http_client.answer = lambda _what, body: {
            "handles": {ghost: {"owner": SAM} for ghost in body.get("handles", [])},
            "blocked": [],
        }
        self.before = {key: (value, size(value)) for key, value in content.items()}
        requester = SimpleNamespace(user=SimpleNamespace(to_string=lambda: ALICE))
        begun = time.thread_time()
        done = api.callbacks["on_create_room"](requester, content, False)  # noqa: FBT003
        self.successResultOf(defer.ensureDeferred(done))
        took = time.thread_time() - begun
        if "STONECHAT_FIGURES" in os.environ:
            print(f"{len(body) / 1e6:.1f} MB in {took * 1000:.2f} ms")  # noqa: T201
        self.assertLess(took, LIMIT)
        return content

    def stays(self, content: dict[str, Any]) -> None:
        """Check that the same values are there, and none was added to or taken from."""
        self.assertEqual(content.keys(), self.before.keys())
        for key, value in content.items():
            self.assertIs(value, self.before[key][0], key)
            self.assertEqual(size(value), self.before[key][1], key)

    def test_what_is_beyond_the_bounds_stays_as_it_is(self) -> None:
        for request in beyond_the_bounds():
            self.stays(self.takes(request))

    def test_names_that_cannot_be_invited_leave_the_request_as_it_is(self) -> None:
        for request in impossible_names():
            self.stays(self.takes(request))

    def test_what_is_within_the_bounds_is_changed_in_time(self) -> None:
        for request in within_the_bounds():
            content = self.takes(request)
            self.assertEqual(content["invite"], [SAM])
            creation = content.get("creation_content", {})
            self.assertNotIn(SAMS, creation.get("additional_creators", []))


class Count:
    """A number of operations."""

    def __init__(self) -> None:
        self.operations = 0


def counted(base: type, count: Count, *names: str) -> Any:
    """Make a class like another one that counts calls of these methods."""

    def counting(name: str) -> Any:
        original = getattr(base, name)

        def method(self: Any, *args: Any) -> Any:
            # A comparison with a string ends at its type.
            if name != "__eq__" or not isinstance(args[0], str) or base is str:
                count.operations += 1
            return original(self, *args)

        return method

    return type(base.__name__, (base,), {name: counting(name) for name in names})


WALKS = ("__iter__", "__getitem__", "__eq__", "__contains__", "__reversed__", "__reduce__", "copy")


class WorkTest(unittest.TestCase):
    """What is done, counted: the same on every machine."""

    def change(self, content: dict[str, Any]) -> list[str]:
        rooms.encrypt_direct(content, HERE)
        rooms.question(content, ALICE, HERE)
        return rooms.put_owners(content, ALICE, {SAMS: SAM}, HERE)

    def test_no_element_is_looked_at_beyond_the_bounds(self) -> None:
        for place in ("invite", "initial_state", "additional_creators"):
            count = Count()
            sealed = counted(list, count, *WALKS, "index", "count")([SAMS] * 101)
            content: dict[str, Any] = {"is_direct": True, "invite": [SAMS]}
            if place == "additional_creators":
                content["creation_content"] = {place: sealed}
            else:
                content[place] = sealed
            self.assertEqual(self.change(content), [])
            self.assertEqual(count.operations, 0, place)
            sealed.pop()
            self.assertEqual(self.change(content), [SAM])
            self.assertNotEqual(count.operations, 0, place)

    def test_nested_json_is_neither_walked_nor_compared_nor_copied(self) -> None:
        count = Count()
        objects = counted(dict, count, *WALKS[:-1], "copy", "items", "keys", "values")
        lists = counted(list, count, *WALKS)
        nested = objects({"x": lists([objects(), lists()])})
        content = {
            "is_direct": True,
            "preset": nested,
            "invite": [SAMS],
            "invite_3pid": lists([nested]),
            "initial_state": [
                nested,
                {"type": nested, "state_key": "", "content": nested},
                {"type": "m.room.power_levels", "content": {"users": {SAMS: nested}}},
                {"type": "m.room.topic", "state_key": "", "content": nested},
            ],
            "power_level_content_override": {"users": {SAMS: nested}, "events": nested},
            "creation_content": objects(
                {"x": nested, "additional_creators": [nested, objects(nested), SAMS]}
            ),
        }
        count.operations = 0
        self.assertEqual(self.change(content), [SAM])
        self.assertEqual(count.operations, 0)

    def test_levels_are_looked_up_and_never_listed(self) -> None:
        count = Count()
        by_user = counted(dict, count, "__iter__", "items", "keys", "values", "copy", "__eq__")(
            {SAMS: 75} | {f"@u{n}:stone.test": 1 for n in range(1000)}
        )
        content = {"invite": [SAMS], "power_level_content_override": {"users": by_user}}
        self.assertEqual(self.change(content), [SAM])
        self.assertEqual(count.operations, 0)
        self.assertEqual((len(by_user), by_user[SAM]), (1001, 75))

    def test_twice_as_much_is_twice_the_work(self) -> None:
        def work(size: int) -> int:
            count = Count()
            name = counted(str, count, "__hash__", "__eq__", "startswith", "partition", "lower")
            state = {"type": name("m.room.power_levels"), "state_key": name("")}
            content = {
                "is_direct": True,
                "preset": "trusted_private_chat",
                "invite": [name(SAMS) for _ in range(size)],
                "initial_state": [state | {"content": {"users": {}}} for _ in range(size)],
                "creation_content": {"additional_creators": [name(f"{n}") for n in range(size)]},
            }
            count.operations = 0
            self.assertEqual(self.change(content), [SAM])
            return count.operations

        small, large = work(50), work(100)
        self.assertLessEqual(large, 2 * small)
        self.assertLess(large, 40 * 100)
