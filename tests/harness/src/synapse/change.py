"""Changes the database of a Synapse that does not run: path, statement, values."""

import sqlite3
import sys

path, sql, *values = sys.argv[1:]
with sqlite3.connect(path, timeout=20) as database:
    if database.execute(sql, values).rowcount == 0:
        sys.exit("it changed nothing")
