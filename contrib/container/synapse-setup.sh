#!/bin/sh
# Sets up Synapse for contrib/compose.yaml, in Synapse's image: its configuration and keys, the
# password of PostgreSQL, and a second configuration file with what Stonechat needs. What exists
# already stays as it is.
#
# Reads SYNAPSE_SERVER_NAME and SYNAPSE_REPORT_STATS, as the image does, and the folders /shared
# (what Stonechat's setup has written), /secrets and /data.
set -eu

if [ ! -e /secrets/postgres ]; then
    # PostgreSQL reads it as a user of its own; nobody else has this volume.
    python3 -c 'import secrets; print(secrets.token_hex(32))' >/secrets/draft
    mv /secrets/draft /secrets/postgres
fi

[ -e /data/homeserver.yaml ] || /start.py generate

if [ ! -e /data/stonechat.yaml ]; then
    python3 - <<'PYTHON'
import os
import pathlib

import yaml

config = {
    "database": {
        "name": "psycopg2",
        "args": {
            "host": "postgres",
            "user": "synapse",
            "dbname": "synapse",
            "password": pathlib.Path("/secrets/postgres").read_text().strip(),
            "cp_min": 5,
            "cp_max": 10,
        },
    },
    "app_service_config_files": ["/shared/registration.yaml"],
    "experimental_features": {
        "msc2409_to_device_messages_enabled": True,
        "msc3202_transaction_extensions": True,
    },
    # Rooms that people are invited to are encrypted from their first moment.
    "encryption_enabled_by_default_for_room_type": "invite",
    # People find handles by typing; everybody then finds everybody.
    "user_directory": {"search_all_users": True},
}
config |= yaml.safe_load(pathlib.Path("/shared/homeserver-module.yaml").read_text())
draft = pathlib.Path("/data/stonechat.yaml.draft")
draft.unlink(missing_ok=True)
draft.touch(mode=0o600)
draft.write_text(yaml.safe_dump(config, sort_keys=False))
# The user as whom the image runs Synapse.
os.chown(draft, 991, 991)
draft.rename("/data/stonechat.yaml")
PYTHON
fi
