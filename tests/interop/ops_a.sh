# First generation of changes, in the root of a mount (or of a plain directory, to know what is right).
# ROOT: owners and devices may be changed. DIRS: this writer renames lower directories.
# LINKS: this writer keeps hard links of lower files together. NESTED: it escapes overlay xattrs.
# LINKATTRS: xattrs of symbolic links work. SPECIALS: sockets and devices can be copied up.
umask 022
root() { if [ -n "${ROOT:-}" ]; then "$@"; fi; }
dirs() { if [ -n "${DIRS:-}" ]; then "$@"; fi; }
linkattrs() { if [ -n "${LINKATTRS:-}" ]; then "$@"; fi; }
specials() { if [ -n "${SPECIALS:-}" ]; then "$@"; fi; }
links() { if [ -n "${LINKS:-}" ]; then "$@"; fi; }
blob() { seq -f "$2 %.0f" 100000000 | head -c $(($3 * 1024)) > "$1" || [ $? = 141 ]; }

# Files: create, overwrite, append, in place, truncate, holes.
echo new > etc/new; echo rewritten > etc/passwd; echo more >> etc/hosts
printf MIDDLE | dd of=var/db/big bs=1 seek=150000 conv=notrunc status=none
truncate -s 70000 var/db/second
printf tail | dd of=var/db/sparse bs=4096 seek=300 conv=notrunc status=none
truncate -s 3M var/db/sparse2
fallocate -p -o 0 -l 65536 var/db/third
truncate -s 5M var/db/newsparse; printf x | dd of=var/db/newsparse bs=1M seek=3 conv=notrunc status=none
blob var/db/newbig newbig 200
: > deep/1/2/3/4/file
echo deep >> deep/1/2/file
echo plain > kind/link-then-file; echo again >> kind/dir-then-file

# Attributes.
chmod 4711 usr/bin/tool; chmod 600 usr/lib/liba; chmod 700 dirs/keep
root chown 5:6 own/u; root chown -h 7:8 own/l; root chown 9 own/g
touch -d '2012-01-02 03:04:05.060708' usr/bin/sgid; touch -h -d '2013-01-02 03:04:05' usr/lib/liba.so
touch -d '2014-01-02 03:04:05.9' deep/1
setfattr -n user.new -v "$(printf '\1\2 value')" x/attr; setfattr -x user.two x/attr
setfattr -x user.three x/attr3; setfattr -n user.dir2 -v 2 x/dir; setfattr -n user.top -v 1 dirs/top
root setfattr -n trusted.lamel -v t x/attr2; linkattrs root setfattr -h -n trusted.onlink -v l usr/lib/dangling
setfacl -m u:0:r x/acl; setfacl -m u:0:rw,g:0:rw etc/motd; setfacl -b x/acl
setfacl -m u:0:rwx own/g
mkdir x/defacl/sub; echo d > x/defacl/inherits; echo d > x/defacl/sub/inherits
echo cap > usr/bin/newcap; chmod 755 usr/bin/newcap
root setcap cap_net_admin+ep usr/bin/newcap; root setcap cap_setuid+ep usr/bin/sgid
root chown 3:3 usr/bin/suid

# Deleting.
rm etc/group etc/hosts usr/share/doc/new 2>/dev/null || rm -f etc/hosts usr/share/doc/new
rm -r dirs/gone; rm dirs/emptied/e; rmdir dirs/emptied; rm dirs/merged/a dirs/merged/d
rm usr/lib/dangling special/fifo

# Over whiteouts: a directory becomes opaque.
echo reborn > etc/hosts; ln -s elsewhere usr/lib/dangling
rm -r dirs/redo; mkdir dirs/redo; echo fresh > dirs/redo/fresh; mkdir dirs/redo/sub; echo f > dirs/redo/sub/f
rm -r dirs/merged; mkdir dirs/merged; echo only > dirs/merged/only
mkdir dirs/emptied; chmod 711 dirs/emptied

# Renaming files: lower, upper, over a lower one, into another directory.
mv etc/shadow etc/shadow-; mv etc/new etc/newer; mv usr/lib/liba usr/lib/more/libb
mv -T etc/motd usr/bin/capped; mv usr/lib/liba.so usr/libs; specials mv special/sock dirs/top/sock
mv "names/with space" "names/with  two"; mv $'names/new\nline' names/back\\slash
# Renaming directories: of the upper, and of the lowers where it can be done.
mkdir -p up/a/b; echo u > up/a/b/f; mv up/a up/c
dirs mv dirs/move dirs/moved; dirs mv dirs/swap-a dirs/into/swapped; dirs mv usr/share usr/shared
dirs mv dirs/moved/deep/er dirs/er; dirs sh -c 'echo in > dirs/er/new; rm dirs/er/de; echo x >> dirs/moved/side'
dirs sh -c 'mkdir dirs/move; echo other > dirs/move/other'

# Links.
ln etc/newer up/hard; ln var/db/newbig up/c/hard2; ln -s ../x up/symlink
links sh -c 'ln hard/q1 hard/q3; echo through >> hard/two; chmod 604 hard/p2; rm hard/p1; ln hard/one hard/four'
# Specials.
mkfifo special/newfifo; root mknod special/zero c 1 5; root mknod special/ram b 1 0
specials root chmod 666 special/null; specials root chown 1:1 special/loop
# Another union inside this one leaves its marks.
nested() { if [ -n "${NESTED:-}" ]; then "$@"; fi; }
nested mkdir -p nest/opq; nested setfattr -n $NS.overlay.opaque -v y nest/opq
nested setfattr -n $NS.overlay.redirect -v /etc nest/opq
nested sh -c 'echo n > nest/f; setfattr -n '$NS'.overlay.overlay.metacopy -v "" nest/f'
