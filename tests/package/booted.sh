#!/bin/sh
# Runs as a service of a clean Debian that systemd has booted: the service starts when it is
# configured, works in its sandbox, and is restarted by an upgrade only if it ran.
set -eu

fail() {
    echo "FAILED: $*"
    systemctl --no-pager --full status stonechat || true
    journalctl --no-pager --unit stonechat | tail -n 30
    exit 1
}

state() {
    systemctl is-active stonechat || true
}

pid() {
    systemctl show --property=MainPID --value stonechat
}

# until_says WORDS COMMAND...: waits for up to 20 s until a command prints the words.
until_says() {
    words=$1
    shift
    for _ in $(seq 100); do
        if "$@" 2>/dev/null | grep -q -- "$words"; then return; fi
        sleep 0.2
    done
    fail "\`$*\` does not say \`$words\`: $("$@" 2>&1)"
}

dpkg -i /tried/stonechat.deb
[ "$(systemctl is-enabled stonechat)" = enabled ] || fail "not enabled"
systemctl start stonechat
[ "$(state)" = inactive ] || fail "it starts without a configuration"

runuser -u stonechat -- stonechat init --homeserver http://127.0.0.1:8008 --server-name example.org
groupadd --force --system matrix-synapse
chgrp matrix-synapse /etc/stonechat/registration.yaml
chmod 640 /etc/stonechat/registration.yaml
sed -i '/^metrics:/,/^[a-z]/s/^  listen: .*/  listen: 127.0.0.1:29339/' /etc/stonechat/stonechat.yaml
grep -q '127.0.0.1:29339' /etc/stonechat/stonechat.yaml || fail "no metrics"

# It has told systemd that it serves, and waits for a homeserver that is not there.
systemctl start stonechat
[ "$(state)" = active ] || fail "not active"
until_says '^StatusText=starting$' systemctl show --property=StatusText stonechat
until_says '^homeserver: ' runuser -u stonechat -- stonechat status
[ "$(stat -c '%U:%G %a' /var/lib/stonechat)" = 'stonechat:stonechat 700' ] || fail "the folder"
[ -e /var/lib/stonechat/data ] || fail "no database"
first=$(pid)
[ "$(sed -n 's/^Seccomp:[^0-9]*//p' "/proc/$first/status")" = 2 ] || fail "no filter of system calls"
metrics() {
    bash -c 'exec 3<>/dev/tcp/127.0.0.1/29339 && printf "GET /metrics HTTP/1.0\r\n\r\n" >&3 && cat <&3'
}
# It reads these from /proc, also in its sandbox.
until_says '^process_start_time_seconds ' metrics
until_says '^process_resident_memory_bytes ' metrics
systemctl reload stonechat || fail "reload"
[ "$(pid)" = "$first" ] || fail "reload has restarted it"

dpkg -i /tried/next.deb
until_says '^active$' systemctl is-active stonechat
[ "$(pid)" != "$first" ] || fail "the upgrade has not restarted it"
until_says '^homeserver: ' runuser -u stonechat -- stonechat status
systemctl stop stonechat
[ "$(systemctl show --property=Result --value stonechat)" = success ] || fail "it does not stop by itself"
dpkg -i --force-downgrade /tried/stonechat.deb
[ "$(state)" = inactive ] || fail "the upgrade has started what was stopped"

systemctl start stonechat
dpkg --remove stonechat
[ "$(state)" != active ] || fail "it runs after its removal"
dpkg -i /tried/stonechat.deb
systemctl start stonechat
[ "$(state)" = active ] || fail "it does not start with what was kept"
if journalctl --no-pager --unit stonechat | grep -i 'panicked\|operation not permitted'; then
    fail "the sandbox is in its way"
fi
dpkg --purge stonechat
[ -e /etc/stonechat/store.key ] || fail "the key is gone"
echo 'all is well'
