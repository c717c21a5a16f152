#!/usr/bin/env bash
# Passes the tests: installs what they need (Debian 12 packages, two published
# crates), builds, and runs every suite on real mounts. Needs root.
#   tests/run.sh            everything
#   tests/run.sh NAME...    the named test targets of cli/Cargo.toml, or `unit`
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    acl apache2-utils attr btrfs-progs buildah busybox-static bzip2 catatonit chromium crun docker-registry e2fsprogs
    fuse-overlayfs fuse3 gcc git iproute2 libacl1-dev libarchive-tools libc6-dev libcap2-bin libnbd-bin
    libpython3.11-testsuite make mmdebstrap nbdkit nftables nginx-light openssl passt
    passwd podman procps python3 rsync runc skopeo slirp4netns sqlite3 strace tmux tree uidmap umoci util-linux
    xfsprogs xz-utils zstd
)
crates=(pjdfstest@0.2.2 fsx@0.3.2)

[ "$(id -u)" = 0 ] || { echo "tests/run.sh: the tests mount and unmount: run as root" >&2; exit 1; }
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi
installed=$(cargo install --list)
for crate in "${crates[@]}"; do
    grep -q "^${crate%@*} v${crate#*@}:" <<<"$installed" || cargo install --locked "$crate"
done
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
[ -c /dev/fuse ] || modprobe fuse
# For rootless containers: an account with subordinate ids, and the devices as udev sets them up.
id lamel-test > /dev/null 2>&1 || useradd --create-home lamel-test
grep -q '^lamel-test:' /etc/subuid || usermod --add-subuids 200000-265535 --add-subgids 200000-265535 lamel-test
# For --userns auto, as podman has it.
for file in /etc/subuid /etc/subgid; do
    grep -q '^containers:' "$file" || echo containers:2147483647:2147483648 >> "$file"
done
chmod 666 /dev/fuse /dev/net/tun

# The declared order: cheap ones first.
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(unit $(sed -n '/^\[\[test\]\]/{n;s/^name = "\(.*\)"/\1/p}' cli/Cargo.toml))
fi
failed=()
for target in "${targets[@]}"; do
    printf '\n== %s\n' "$target"
    start=$SECONDS
    case $target in
        unit)
            cargo test --locked --workspace --lib --bins || failed+=("$target")
            cargo test --locked -p lamel-image --tests || failed+=(image)
            ;;
        *) cargo test --locked -p lamel-cli --test "$target" || failed+=("$target") ;;
    esac
    printf '== %s: %d s\n' "$target" $((SECONDS - start))
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "tests/run.sh: failed: ${failed[*]}" >&2
    exit 1
fi
