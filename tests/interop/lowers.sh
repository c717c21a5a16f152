# Fills the three lowers in the current directory: lower2 is the bottom, lower0 the top.
# NS is the xattr namespace of the marks; ROOT is set where other owners and devices can be made.
set -eu
umask 022
blob() { # NAME KIB: content that tells its own place
    seq -f "$1 %.0f" 100000000 | head -c $(($2 * 1024)) > "$1" || [ $? = 141 ]
}
root() { if [ -n "${ROOT:-}" ]; then "$@"; fi; }
# So that it can be overwritten by any umask and never depends on the clock.
old() { find . -depth -print0 | xargs -0 touch -h -d "$1"; }

cd lower2
mkdir -p etc usr/{bin,lib,share/doc} var/db hard/sub own x kind special names deep/1/2/3/4
mkdir -p dirs/{keep,gone/sub,redo/sub,move/deep/er,merged,swap-a,swap-b,emptied,into}
for f in passwd group hosts shadow motd; do echo "bottom $f" > etc/$f; done
chmod 600 etc/shadow
echo tool > usr/bin/tool; chmod 755 usr/bin/tool
echo suid > usr/bin/suid; chmod 4755 usr/bin/suid
echo sgid > usr/bin/sgid; chmod 2755 usr/bin/sgid
echo capped > usr/bin/capped; chmod 755 usr/bin/capped
blob usr/lib/liba 40; chmod 644 usr/lib/liba
ln -s liba usr/lib/liba.so; ln -s /nowhere usr/lib/dangling
for f in a b c; do echo "bottom doc $f" > usr/share/doc/$f; done
blob var/db/big 300; blob var/db/second 150; blob var/db/third 90
truncate -s 2M var/db/sparse
printf head | dd of=var/db/sparse conv=notrunc status=none
printf middle | dd of=var/db/sparse bs=4096 seek=200 conv=notrunc status=none
cp --sparse=always var/db/sparse var/db/sparse2; cp --sparse=always var/db/sparse var/db/sparse3
truncate -s 1M var/db/allhole; : > var/db/empty
echo linked > hard/one; ln hard/one hard/two; ln hard/one hard/sub/three
echo pair > hard/p1; ln hard/p1 hard/p2
echo quiet > hard/q1; ln hard/q1 hard/q2
echo u > own/u; echo g > own/g; echo s > own/s; ln -s u own/l
root chown 1000:100 own/u; root chown 0:2000 own/g; root chown -h 1234:4321 own/l; root chown 70000:70000 own/s
chmod 6755 own/s
echo attr > x/attr; setfattr -n user.one -v 1 x/attr; setfattr -n user.two -v "" x/attr
echo attr2 > x/attr2; setfattr -n user.keep -v yes x/attr2
echo attr3 > x/attr3; setfattr -n user.three -v 3 x/attr3; mkdir x/dir; setfattr -n user.dir -v d x/dir
echo acl > x/acl; setfacl -m u:0:rwx,g:0:r x/acl
mkdir x/defacl; setfacl -d -m u:0:rwx,g:0:rx x/defacl
echo bottom > kind/file-then-dir; mkdir kind/dir-then-file; echo in > kind/dir-then-file/in
ln -s target kind/link-then-file
mkfifo special/fifo; root mknod special/null c 1 3; root mknod special/loop b 7 200
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("special/sock")'
echo sp > 'names/with space'; echo u8 > names/ünïcode; echo nl > $'names/new\nline'; echo d > names/-dash
echo back > 'names/back\slash'; echo colon > names/a:b,c; echo long > names/$(printf 'n%.0s' $(seq 240))
for d in deep deep/1 deep/1/2 deep/1/2/3 deep/1/2/3/4; do echo $d > $d/file; done
echo k > dirs/keep/k; echo g > dirs/gone/g; echo gs > dirs/gone/sub/g
echo r > dirs/redo/r; echo rs > dirs/redo/sub/r
echo side > dirs/move/side; echo d > dirs/move/deep/d; echo de > dirs/move/deep/er/de
for f in a b c d; do echo "bottom merged $f" > dirs/merged/$f; done
echo A > dirs/swap-a/a; echo B > dirs/swap-b/b; echo e > dirs/emptied/e; echo i > dirs/into/i
chmod 750 dirs/keep; chmod 1777 dirs/emptied; chmod 2775 dirs/into; root chgrp 100 dirs/into
mkdir ro; echo ro > ro/file; chmod 444 ro/file; chmod 555 ro
old '2001-02-03 04:05:06.789'
root setcap cap_net_raw+ep usr/bin/capped
cd ..

cd lower1
mkdir -p etc usr/share/doc dirs/{merged,into} kind usr/lib/more var
echo "middle hosts" > etc/hosts
mknod etc/group c 0 0
echo "middle doc" > usr/share/doc/new; setfattr -n $NS.overlay.opaque -v y usr/share/doc
echo "middle merged b" > dirs/merged/b; echo m > dirs/merged/m; mknod dirs/merged/c c 0 0
echo more > usr/lib/more/more
mkdir kind/file-then-dir; echo inner > kind/file-then-dir/inner
mknod kind/dir-then-file c 0 0
echo i1 > dirs/into/i1
old '2005-06-07 08:09:10.111'
cd ..

cd lower0
mkdir -p etc dirs/{merged,top} kind
echo "top motd" > etc/motd; chmod 640 etc/motd
echo t > dirs/top/t; mkdir dirs/top/sub; echo ts > dirs/top/sub/t
echo "top merged d" > dirs/merged/d
echo "now a file" > kind/dir-then-file
echo plain > kind/link-then-file
old '2010-11-12 13:14:15.161'
cd ..
