"""Asks a running Synapse's database: path, statement, values. Prints the rows as JSON."""

import json
import sqlite3
import sys

path, sql, *values = sys.argv[1:]
with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20) as database:
    print(json.dumps(database.execute(sql, values).fetchall()))
