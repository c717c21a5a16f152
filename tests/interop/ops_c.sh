# Third generation.
umask 022
root() { if [ -n "${ROOT:-}" ]; then "$@"; fi; }
dirs() { if [ -n "${DIRS:-}" ]; then "$@"; fi; }
links() { if [ -n "${LINKS:-}" ]; then "$@"; fi; }

chmod 711 usr/bin/tool; echo c >> var/db/big; echo c > usr/lib/liba; mkdir ro; echo c > ro/c
rm dirs/merged; mkdir dirs/merged; echo c > dirs/merged/a; rm etc/shadow; mv etc/hosts etc/shadow
dirs sh -c 'mv dirs/redo dirs/redone; mkdir dirs/redo'; rm -r up/d/b; mv up dirs/top/up
echo c >> deep/moved-file; rm x/attr3; mv x/attr x/attr3; root chown 0:0 own/s
links sh -c 'echo c >> hard/sub/four; rm hard/two; echo c >> hard/p5; ln hard/q3 hard/q9'
dirs sh -c 'mv dirs/keep dirs/kept; echo c >> dirs/kept/again/er2/new; rm -r dirs/into/one/2/3/4'
dirs sh -c 'mv dirs/into/one deep/1; mv dirs/swap-a dirs/swap-c; mv dirs/swap-b dirs/swap-a; mv dirs/swap-c dirs/swap-b'
dirs sh -c 'rm -r dirs/top/sub; mv dirs/kept/again dirs/top/sub'
