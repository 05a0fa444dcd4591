"""Stonechat's module for Synapse: introductions by handle in which no ghost takes part.

While a room is being created, Stonechat is asked what the handles in the invite list stand for and
whether this person may reach their owners now. Where they may, the owner is put in the ghost's
place, so that the room exists for the right people from its first event on.

Nothing that goes wrong here keeps Synapse from starting, a room from being made or an invite from
arriving. Then it is as without the module.

| file          | what it is                                                   |
|---------------|--------------------------------------------------------------|
| `config.py`   | what `homeserver.yaml` says to the module                    |
| `secret.py`   | the token, read again while Synapse runs                     |
| `rooms.py`    | what a request to create a room asks for, and becomes: pure  |
| `client.py`   | Stonechat, as far as it answers in time                      |
| `expected.py` | invites that were looked at before they are made             |
| `failures.py` | failures of the module itself, logged once an hour           |
| `clock.py`    | the time, handed in                                          |
| `module.py`   | the callbacks                                                |
"""

from synapse_stonechat.module import StonechatModule
from synapse_stonechat.version import VERSION

__all__ = ["VERSION", "StonechatModule"]
__version__ = VERSION
