#!/usr/bin/env python3
"""Signs the device of a bot with the bot's own identity (cross-signing), by raw API calls.

For bots on libraries that cannot do it themselves. Run it once, after the bot's device has
uploaded its keys, with the access token of that very device:

    pip install pynacl canonicaljson
    MATRIX_ACCESS_TOKEN=… python3 sign_device.py http://127.0.0.1:8008 identity.json

The identity lies in `identity.json` from then on. Keep that file: the next device of the bot is
signed with the same one, and nobody is warned of a changed identity.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from getpass import getpass
from pathlib import Path

from canonicaljson import encode_canonical_json
from nacl.signing import SigningKey

HOMESERVER, IDENTITY = sys.argv[1].rstrip("/"), Path(sys.argv[2])
TOKEN = os.environ["MATRIX_ACCESS_TOKEN"]


def call(method, path, body=None):
    """The status and the body of the answer."""
    request = urllib.request.Request(
        f"{HOMESERVER}/_matrix/client/v3{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def must(answer):
    status, body = answer
    if status != 200:
        sys.exit(f"the homeserver refused: {status} {body}")
    return body


def base64_of(data):
    """Matrix writes base64 without padding."""
    return base64.b64encode(data).decode().rstrip("=")


def public(key):
    return base64_of(bytes(key.verify_key))


def sign(thing, user, key):
    """Adds a signature over the canonical JSON of everything but signatures and unsigned."""
    bare = {name: thing[name] for name in thing if name not in ("signatures", "unsigned")}
    signature = base64_of(key.sign(encode_canonical_json(bare)).signature)
    signatures = thing.setdefault("signatures", {}).setdefault(user, {})
    signatures[f"ed25519:{public(key)}"] = signature
    return thing


def identity_keys():
    """Three private keys: from the file, or new ones that are written there first."""
    if not IDENTITY.exists():
        seeds = {name: base64_of(os.urandom(32)) for name in ("master", "self", "user")}
        with open(os.open(IDENTITY, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(seeds, file)
    seeds = json.loads(IDENTITY.read_text())
    return [SigningKey(base64.b64decode(seeds[name] + "=")) for name in ("master", "self", "user")]


me = must(call("GET", "/account/whoami"))
user, device = me["user_id"], me["device_id"]
shown = must(call("POST", "/keys/query", {"device_keys": {user: []}}))
if device not in shown["device_keys"].get(user, {}):
    sys.exit(f"{device} has not uploaded its keys yet: let the bot sync once")
master, self_signing, user_signing = identity_keys()

# 1. The identity: the master key, and two keys that it signs.
there = shown.get("master_keys", {}).get(user)
if there is None:
    def cross_signing_key(usage, key):
        return {
            "user_id": user,
            "usage": [usage],
            "keys": {f"ed25519:{public(key)}": public(key)},
        }

    upload = {
        "master_key": cross_signing_key("master", master),
        "self_signing_key": sign(cross_signing_key("self_signing", self_signing), user, master),
        "user_signing_key": sign(cross_signing_key("user_signing", user_signing), user, master),
    }
    status, answer = call("POST", "/keys/device_signing/upload", upload)
    if status == 401:  # the homeserver asks for the password first
        upload["auth"] = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user},
            "password": os.environ.get("MATRIX_PASSWORD") or getpass(f"password of {user}: "),
            "session": answer["session"],
        }
        status, answer = call("POST", "/keys/device_signing/upload", upload)
    must((status, answer))
elif f"ed25519:{public(master)}" not in there["keys"]:
    sys.exit(f"{user} has another identity than the one in {IDENTITY}")

# 2. The device, signed by the self-signing key.
signed = sign(shown["device_keys"][user][device], user, self_signing)
signed.pop("unsigned", None)
answer = must(call("POST", "/keys/signatures/upload", {user: {device: signed}}))
if any(answer.get("failures", {}).values()):  # refused signatures come with status 200
    sys.exit(f"the homeserver refused the signature: {answer['failures']}")

# 3. What others see now.
shown = must(call("POST", "/keys/query", {"device_keys": {user: [device]}}))
signatures = shown["device_keys"][user][device]["signatures"][user]
assert f"ed25519:{public(self_signing)}" in signatures
print(f"{device} of {user} is signed by its owner")
