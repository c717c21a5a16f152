#!/usr/bin/env bash
# Builds lamel and shows the main job on real input: the host's own root as the
# read-only layer, a fresh upper over it, changes, and what they came to.
# The host's tree is compared before and after. Needs root and /dev/fuse.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "needs root; as a plain user, mount your own directories with target/release/lamel mount"
if ! [ -c /dev/fuse ]; then
    modprobe fuse 2>/dev/null || true
    [ -c /dev/fuse ] || fail "/dev/fuse is missing: load the kernel module fuse, or hand the device to the container"
fi
command -v cargo >/dev/null || fail "needs Rust 1.88 or newer (package rustup or https://rustup.rs)"
command -v cc >/dev/null || { apt-get update -q && apt-get install -qy gcc libc6-dev; }

step "cargo build --release"
cargo build --release --locked -p lamel-cli
lamel=$PWD/target/release/lamel

work=$(mktemp -d /var/tmp/lamel-demo-XXXXXX)
mkdir "$work"/{upper,work,mnt}
cleanup() {
    mountpoint -q "$work/mnt" && "$lamel" umount --lazy "$work/mnt"
    rm -rf "$work"
}
trap cleanup EXIT

# What the steps below touch, as the host has it.
host_state() { stat -c '%n %i %a %u %g %s %Y %Z' /etc /etc/passwd /etc/hostname /etc/ssl /usr/share/doc 2>/dev/null; sha256sum /etc/passwd; }
before=$(host_state)

step "lamel mount: / is the layer, a fresh directory the upper"
"$lamel" mount --lower / --upper "$work/upper" --work "$work/work" "$work/mnt"
cd "$work/mnt"
findmnt -no SOURCE,FSTYPE,OPTIONS --target "$work/mnt"

step "change, delete, rename"
set -x
echo 'demo:x:4242:4242::/:/bin/false' >> etc/passwd
chmod 600 etc/group
rm -r usr/share/doc
mv etc/ssl etc/ssl-renamed 2>/dev/null || mv etc/apt etc/apt-renamed
echo hello > new-file
{ set +x; } 2>/dev/null

step "programs of the layer run in it"
chroot "$work/mnt" /bin/sh -c 'tail -n 1 /etc/passwd; id demo; test ! -e /usr/share/doc && echo "/usr/share/doc is gone"'
cd /

step "lamel explain"
"$lamel" explain "$work/mnt/etc/passwd"
"$lamel" explain "$work/mnt/etc/group"

step "lamel diff"
"$lamel" diff "$work/mnt"

step "lamel umount; the whole upper"
"$lamel" umount "$work/mnt"
(cd "$work/upper" && find . -mindepth 1 -printf '%y %m %s %p\n' | sort -k4)

step "the host"
[ "$before" = "$(host_state)" ] || fail "the host's files changed"
[ -d /usr/share/doc ] || fail "the host lost /usr/share/doc"
! grep -q '^demo:' /etc/passwd || fail "the host's passwd changed"
echo "untouched"
