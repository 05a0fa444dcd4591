"""Stonechat's module for Synapse: introductions by handle in which no ghost takes part.

While a room is being created, the module asks Stonechat who owns the handles in the invite list,
and whether the person who creates it may reach these owners now. Where they may, it puts the owner
in the ghost's place, so that the room has the right members from its first event on.

No failure of the module keeps Synapse from starting, a room from being made or an invite from
arriving: what the module could not do, it leaves as without the module. Only a mistake in its
configuration keeps Synapse from starting.

| file          | what it is                                                   |
|---------------|--------------------------------------------------------------|
| `config.py`   | the module's part of `homeserver.yaml`                       |
| `secret.py`   | the token, read again while Synapse runs                     |
| `rooms.py`    | reads and changes requests to create a room: pure            |
| `client.py`   | asks Stonechat, and waits only for so long                   |
| `expected.py` | invites that Stonechat was asked about before they are made  |
| `failures.py` | failures of the module itself, logged once an hour           |
| `clock.py`    | the clock, passed in as an argument                          |
| `module.py`   | the callbacks                                                |
"""

from synapse_stonechat.module import StonechatModule
from synapse_stonechat.version import VERSION

__all__ = ["VERSION", "StonechatModule"]
__version__ = VERSION
