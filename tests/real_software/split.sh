# split.sh TREE PREFIX: fills the directories PREFIX0 (top) to PREFIX5 so that their union is TREE, with every kind of
# mark in between.
set -euo pipefail
tree=$1 prefix=$2
exec 3>&1 >/dev/null

# The directories above PATH, and PATH, with their attributes, into LAYER.
put() { # layer path...
    local layer=$1
    shift
    (cd "$tree" && printf '%s\n' "$@" | rsync -aHAX --files-from=- -r . "../$layer/")
}
# Directory times change as entries are made in them: set again at the end.
dirs() { # layer path...
    local layer=$1
    shift
    (cd "$tree" && printf '%s\n' "$@" | rsync -aAX --files-from=- --no-recursive -d . "../$layer/")
}

# 5: all of it; what the layers above hide is spoilt here.
rsync -aHAX "$tree/" "${prefix}5/"
(
    cd "${prefix}5"
    find etc -type f -exec sh -c 'echo stale > "$1"' _ {} \;
    mkdir -p usr/share/doc/stale/deep opt/stale/deep usr/games/stale
    echo stale > usr/share/doc/stale/deep/file
    echo stale > opt/stale/deep/file
    for dir in usr/bin usr/sbin usr/lib var/lib/dpkg/info; do echo stale > "$dir/stale"; done
    rm -rf var/cache/apt
    mkdir -p var/cache
    echo stale > var/cache/apt
    rm -rf usr/share/zoneinfo
)
# 4: an opaque directory.
put "${prefix}4" usr/share/doc
setfattr -n trusted.overlay.opaque -v y "${prefix}4/usr/share/doc"
# 3: whiteouts, as devices and as files; a directory over a file.
dirs "${prefix}3" usr usr/bin usr/sbin usr/lib usr/games opt var var/lib var/lib/dpkg var/lib/dpkg/info var/cache
for dir in usr/bin usr/sbin usr/games opt; do mknod "${prefix}3/$dir/stale" c 0 0; done
for dir in usr/lib var/lib/dpkg/info; do touch "${prefix}3/$dir/.wh.stale"; done
put "${prefix}3" var/cache/apt
# 2: files that hide others; a merged directory under a usrmerge symlink.
put "${prefix}2" etc usr/share/zoneinfo
# 1: what the package manager rewrites.
put "${prefix}1" var/lib/dpkg var/lib/apt
# 0: the packages to be installed.
put "${prefix}0" debs
rm -rf "${prefix}5/debs"
# The last words on directories that several layers have.
for n in 5 4 3 2 1 0; do
    (cd "$prefix$n" && find . -type d | (cd "../$tree" && while IFS= read -r dir; do
        [ -d "$dir" ] && touch -r "$dir" "../$prefix$n/$dir"
    done))
done
