# layers.sh BASE.tar OUT: fills OUT with layer tars 1.tar (BASE) to 8.tar, as engines write layers, so that every kind of
# object and of mark is in one of them.
set -euo pipefail
base=$1 out=$2
mkdir -p "$out"
cp "$base" "$out/1.tar"
work=$(mktemp -d -p "$out")
trap 'rm -rf "$work"' EXIT
tree=$work/tree

begin() { mkdir -p "$tree"; cd "$tree"; }
# Names in an order of their own: engines put an opaque mark right after its directory, and list parents again.
end() { # number
    find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z > "$work/names"
    find . -depth -print0 | xargs -0 touch -h -d @$((1700000000 + $1))
    tar --format=pax --xattrs --xattrs-include='*' -S --numeric-owner --no-recursion --null --verbatim-files-from -T "$work/names" \
        -cf "$out/$1.tar"
    cd /
    rm -rf "$tree"
}

begin # 2: every kind of object
mkdir -p special/sticky special/empty
printf '#!/bin/sh\n' > special/suid && chown 1000:1000 special/suid && chmod 6755 special/suid
printf 'x' > special/cap && setcap cap_net_raw+ep special/cap
printf 'x' > special/attr && setfattr -n user.note -v 'two words' special/attr && setfattr -n trusted.note -v t special/attr
truncate -s 64M special/sparse && printf 'middle' | dd of=special/sparse bs=1 seek=33554432 conv=notrunc status=none
truncate -s 5M special/hole
mkfifo special/fifo
mknod special/null c 1 3 && mknod special/disk b 253 7 && chmod 640 special/disk
chmod 1777 special/sticky && chown 65534:4294967294 special/sticky
printf 'linked' > special/one && ln special/one special/two && ln special/one special/sticky/three
ln -s /etc/passwd special/absolute && ln -s ../../../../etc/passwd special/upwards && ln -s nowhere special/dangling
long=$(printf 'n%.0s' {1..255})
mkdir -p "special/$long/$long" && printf 'long' > "special/$long/$long/$long"
printf 'bytes' > "$(printf 'special/\xff\xfe not utf-8')" && printf 'newline' > "special/a
b"
printf 'gone later' > special/later
mkdir special/dir special/merged && printf 'below' > special/dir/below && printf 'below' > special/merged/below
printf 'a file' > special/becomes-dir
end 2
begin # 3: files replaced and deleted, a tree deleted
mkdir -p etc special usr/share usr/bin
printf 'root:x:0:0:root:/root:/bin/sh\n' > etc/passwd
touch special/.wh.later usr/share/.wh.doc usr/bin/.wh.perl && chmod 0 special/.wh.later
end 3
begin # 4: an opaque directory
mkdir -p usr/share/zoneinfo
touch usr/share/zoneinfo/.wh..wh..opq && printf 'UTC0' > usr/share/zoneinfo/Only
end 4
begin # 5: names exchange their kinds
mkdir -p special/becomes-dir
printf 'inside' > special/becomes-dir/file && printf 'now a file' > special/dir
end 5
begin # 6: what was deleted comes again
mkdir -p special usr/share/doc/again
printf 'new' > special/later && printf 'new' > usr/share/doc/again/copyright
end 6
begin # 7: one of three hard links changes; a directory is a symlink from now on
mkdir -p special
printf 'alone' > special/two && ln -s sticky special/empty
end 7
begin # 8: attributes alone
mkdir -p special/merged special/sticky
chmod 700 special/merged && chown 5:6 special/merged && chmod 1755 special/sticky
end 8
