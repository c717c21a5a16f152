# Second generation: what the first made is changed again, perhaps by another writer.
umask 022
root() { if [ -n "${ROOT:-}" ]; then "$@"; fi; }
dirs() { if [ -n "${DIRS:-}" ]; then "$@"; fi; }
links() { if [ -n "${LINKS:-}" ]; then "$@"; fi; }

echo b >> usr/bin/tool          # data after a metacopy
echo b >> usr/lib/more/libb     # the same, and renamed in between
chmod 640 var/db/big            # attributes after data
printf B | dd of=usr/bin/suid bs=1 seek=1 conv=notrunc status=none
touch -d '2015-05-05 05:05:05' deep/1/2/file; mv deep/1/2/file deep/moved-file
rm etc/hosts; rm -r dirs/redo dirs/merged; rm usr/lib/dangling
mkdir dirs/redo; echo third > dirs/redo/r; echo B > dirs/merged; echo B > etc/group
mv etc/shadow- etc/shadow; mv etc/newer etc/hosts
rm up/hard; echo b >> up/c/hard2; mv up/c up/d; ln up/d/b/f up/d/g
setfattr -n user.one -v b x/attr; setfacl -b etc/passwd; setfattr -n user.x -v y x/attr2
truncate -s 10 var/db/sparse; fallocate -p -o 8192 -l 8192 var/db/newbig
root chown 77:88 own/s; root chown 99:99 deep/1/2/3; root mknod special/full c 1 7
links sh -c 'echo again >> hard/sub/three; chmod 640 hard/one; mv hard/four hard/sub/four; echo q >> hard/q2'
links ln hard/p2 hard/p5
dirs sh -c 'mv dirs/moved dirs/keep/again; mv dirs/er dirs/keep/again/er2; rm -r usr/shared; mkdir usr/share'
dirs sh -c 'mv deep/1 dirs/into/one; echo b >> dirs/into/one/2/3/file; mv dirs/into/swapped dirs/swap-a'
dirs sh -c 'echo b > dirs/keep/again/side; chmod 700 dirs/keep/again/deep'
rm -rf nest/opq/none; rm names/-dash; mv names/a:b,c names/c,b:a
chmod 1755 dirs/into; rm -r ro
