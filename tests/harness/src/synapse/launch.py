"""Runs one of Synapse's processes (the module of its app comes first), and ends it at once when the
process that started it is gone.

The parent holds the other end of our standard input: when that closes, however the parent died,
so do we. No test leaves a homeserver behind.
"""

import importlib
import os
import signal
import sys
import threading


def die_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def no_waiting_for_the_disk() -> None:
    """A test survives kill -9 of Synapse without fsync; it need not survive a power cut."""
    from synapse.storage.engines.sqlite import Sqlite3Engine

    prepare = Sqlite3Engine.on_new_connection

    def on_new_connection(self, connection):
        prepare(self, connection)
        connection.execute("PRAGMA synchronous = OFF;")

    Sqlite3Engine.on_new_connection = on_new_connection


if __name__ == "__main__":
    threading.Thread(target=die_with_parent, daemon=True).start()
    no_waiting_for_the_disk()
    app = importlib.import_module(sys.argv.pop(1))

    sys.argv[0] = "synapse"
    app.main()
