#!/usr/bin/env bash
# Builds the Debian package from a program that is built already, checks it, and tries it in a clean
# Debian: once without systemd, as in a container, and once booted, where the service really runs in
# its sandbox. Usage: tests/package/run.sh [PROGRAM]
#
# Needs root, cargo-deb, lintian, shellcheck, mmdebstrap and systemd-nspawn.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
program=${1:-$target/debug/stonechat}
PATH=$target/cargo-deb/bin:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/stonechat-package-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

say() {
    printf '%3d s: %s\n' "$SECONDS" "$*"
}

say "scripts"
shellcheck contrib/debian/build contrib/debian/postinst contrib/debian/postrm tests/package/*.sh

say "package"
DEB_FLAGS=--fast DEB_OUTPUT=$work contrib/debian/build "$program"
deb=$(echo "$work"/stonechat_*.deb)
version=$(dpkg-deb --field "$deb" Version)
[ "$(dpkg-parsechangelog --file contrib/debian/changelog --show-field Version)" = "$version" ] ||
    fail "contrib/debian/changelog does not begin with $version"
say "$(basename "$deb"): $(($(stat -c %s "$deb") / 1024)) KiB"

say "lintian"
lintian --allow-root --fail-on error,warning "$deb"

say "exposure of the service"
# In tenths: below 2.0.
exposure=$(systemd-analyze security --offline=true --no-pager --threshold=19 \
    contrib/debian/stonechat.service | tail -n 1) || fail "$exposure"
echo "$exposure"

# The next version: what is installed over a running service.
dpkg-deb --raw-extract "$deb" "$work/next"
sed -i "s/^Version: .*/Version: $version+next/" "$work/next/DEBIAN/control"
dpkg-deb --build -Znone "$work/next" "$work/next.deb" >/dev/null
rm -rf "$work/next"

say "a clean Debian"
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
root=$work/root
mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --include=systemd "$suite" "$root"
mkdir "$root/tried"
cp "$deb" "$root/tried/stonechat.deb"
mv "$work/next.deb" "$root/tried/next.deb"
cp tests/package/installed.sh tests/package/booted.sh "$root/tried/"

say "without systemd"
# systemd-tmpfiles needs /proc.
unshare --mount --pid --fork --kill-child chroot "$root" \
    sh -c 'mount -t proc proc /proc && exec sh /tried/installed.sh'

say "with systemd"
# In some containers nothing can be booted.
if ! systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
    --directory="$root" true </dev/null >"$work/console" 2>&1; then
    echo "NOT TRIED: systemd-nspawn does not work on this machine: $(tail -n 1 "$work/console")"
    say "done"
    exit 0
fi
cat >"$root/etc/systemd/system/tried.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
TimeoutStartSec=300
ExecStart=/bin/sh /tried/booted.sh
StandardOutput=append:/tried/log
StandardError=append:/tried/log
[Install]
WantedBy=default.target
UNIT
chroot "$root" systemctl --quiet enable tried.service
chroot "$root" systemctl --quiet set-default multi-user.target
status=0
timeout --kill-after=10 330 systemd-nspawn --quiet --boot --register=no --keep-unit \
    --private-network --console=pipe --directory="$root" </dev/null >"$work/console" 2>&1 || status=$?
if [ "$status" != 0 ] || ! grep -qx 'all is well' "$root/tried/log"; then
    cat "$root/tried/log" || true
    tail -n 60 "$work/console"
    fail "the booted system (status $status)"
fi

say "done"
