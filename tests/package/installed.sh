#!/bin/sh
# Runs in a clean Debian in which systemd does not run: installs the package, configures Stonechat,
# and removes the package.
set -eu

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect ACCESS PATH: owner, group and mode of a file.
expect() {
    [ "$(stat -c '%U:%G %a' "$2")" = "$1" ] || fail "$2 is $(stat -c '%U:%G %a' "$2"), not $1"
}

as() {
    runuser -u "$1" -- sh -c "cd / && $2"
}

dpkg -i /tried/stonechat.deb >/tried/said 2>&1 || fail "$(cat /tried/said)"
grep -q 'sudo -u stonechat stonechat init --homeserver' /tried/said || fail "no next step: $(cat /tried/said)"

stonechat --version
for file in \
    share/man/man1/stonechat.1.gz share/man/man1/stonechat-handle-freeze.1.gz \
    share/bash-completion/completions/stonechat share/zsh/vendor-completions/_stonechat \
    share/fish/vendor_completions.d/stonechat.fish share/stonechat/synapse/synapse_stonechat/module.py \
    share/doc/stonechat/docs/install.md lib/systemd/system/stonechat.service; do
    [ -s "/usr/$file" ] || fail "/usr/$file is missing or empty"
    expect 'root:root 644' "/usr/$file"
done
bash -c '
    . /usr/share/bash-completion/completions/stonechat
    COMP_WORDS=(stonechat han) COMP_CWORD=1 COMPREPLY=()
    _stonechat stonechat han stonechat
    [[ " ${COMPREPLY[*]} " == *" handle "* ]]
' || fail "bash does not complete a command"

expect 'stonechat:stonechat 711' /etc/stonechat
expect 'stonechat:stonechat 700' /var/lib/stonechat
case $(getent passwd stonechat) in
*:/var/lib/stonechat:/usr/sbin/nologin) ;;
*) fail "the user is $(getent passwd stonechat)" ;;
esac

init='stonechat init --homeserver http://127.0.0.1:8008 --server-name example.org --with-module'
as stonechat "$init" >/tried/said || fail "init"
grep -q '  systemctl restart stonechat' /tried/said || fail "init names no service: $(cat /tried/said)"
grep -q 'PYTHONPATH=/usr/share/stonechat/synapse' /tried/said || fail "init does not find the module"
as stonechat "$init" 2>/tried/said && fail "a second init changed something"
grep -q -- --force /tried/said || fail "$(cat /tried/said)"
for file in stonechat.yaml store.key registration.yaml module.token; do
    expect 'stonechat:stonechat 600' "/etc/stonechat/$file"
done
grep -qx 'data: /var/lib/stonechat/data' /etc/stonechat/stonechat.yaml || fail "the database is elsewhere"

# As docs/install.md has it: Synapse reads the registration and the token, and nothing else.
groupadd --system matrix-synapse
useradd --system --gid matrix-synapse --no-create-home matrix-synapse
as matrix-synapse 'cat /etc/stonechat/registration.yaml' 2>/dev/null && fail "others read the registration"
for file in registration.yaml module.token; do
    chgrp matrix-synapse "/etc/stonechat/$file"
    chmod 640 "/etc/stonechat/$file"
    as matrix-synapse "cat /etc/stonechat/$file" >/dev/null || fail "Synapse does not read $file"
done
as matrix-synapse 'cat /etc/stonechat/store.key' 2>/dev/null && fail "Synapse reads the key"
as matrix-synapse 'ls /etc/stonechat' 2>/dev/null && fail "Synapse lists the folder"
as matrix-synapse 'ls /var/lib/stonechat' 2>/dev/null && fail "Synapse enters the database's folder"

# It finds its configuration from any folder. Nobody answers on the homeserver's port.
as stonechat 'stonechat doctor' >/tried/said 2>&1 && fail "doctor finds a homeserver"
grep -q '127.0.0.1:8008' /tried/said || fail "doctor: $(cat /tried/said)"

key=$(sha256sum /etc/stonechat/store.key)
dpkg -i /tried/next.deb >/tried/said 2>&1 || fail "$(cat /tried/said)"
expect 'stonechat:matrix-synapse 640' /etc/stonechat/registration.yaml
dpkg --remove stonechat >/tried/said 2>&1 || fail "$(cat /tried/said)"
grep -q 'are kept: /etc/stonechat /var/lib/stonechat' /tried/said || fail "remove: $(cat /tried/said)"
grep -q 'Synapse will not start' /tried/said || fail "remove: $(cat /tried/said)"
dpkg --purge stonechat >/tried/said 2>&1 || fail "$(cat /tried/said)"
grep -q '  rm -r /etc/stonechat' /tried/said || fail "purge: $(cat /tried/said)"
[ "$(sha256sum /etc/stonechat/store.key)" = "$key" ] || fail "the key is gone"

# What was never configured leaves nothing.
rm -r /etc/stonechat /var/lib/stonechat
dpkg -i /tried/stonechat.deb >/dev/null 2>&1
dpkg --purge stonechat >/tried/said 2>&1
for folder in /etc/stonechat /var/lib/stonechat; do
    [ ! -e "$folder" ] || fail "an empty $folder stays"
done
grep -q 'kept' /tried/said && fail "purge keeps what is not there: $(cat /tried/said)"
echo "installed, configured, upgraded, removed, purged"
