# One user's session with podman and buildah; what it prints on stdout must not depend on the storage below. The store
# is chosen by the environment. Leaves built.tar and committed.tar in $OUT. KIND is root or rootless; WHAT is images,
# or all of it.
set -euo pipefail

# What a container sees: everything but times, inode numbers and the sizes of directories.
look='find /data | sort | while read -r f; do stat -c "%n %F %a %u:%g" "$f"; done
      find /data -type l -exec readlink {} + | sort; find /data -type f | sort | xargs md5sum
      getcap -r /data | sort; getfattr --absolute-names -d -m user -R /data'

save() { podman save --format docker-archive -o "$OUT/$1.tar" "$1" > /dev/null 2>&1; }

buildah bud --layers --cap-add=all -t built "$CONTEXT" > "$OUT/build.log" 2>&1 || { cat "$OUT/build.log" >&2; exit 1; }
save built

echo "== a container"
podman run -d --name lamel-c built sleep 1000 > /dev/null
podman exec lamel-c getfattr -n system.lamel.pid --only-values /data > "$OUT/lamel.pid" 2> /dev/null || true
podman exec lamel-c sh -ec 'cd /data
    rm keep/one; rm -rf elsewhere; mkdir elsewhere; echo again > elsewhere/f; ln able able2; chmod 700 keep
    mv keep/rewritten back; echo end >> sparse; mv opaque opaque2; truncate -s 4194304 hole; setcap cap_chown+ep setuid
    mkdir new; touch -d "2002-03-04 05:06:07" new/old; chown 1000:1000 new/old; ln -s old new/link'
podman exec lamel-c sh -c "$look"
podman commit -q lamel-c committed > /dev/null
save committed
if [ "$WHAT" = images ]; then
    podman rm -f -t 0 lamel-c > /dev/null
    exit
fi

echo "== diff"
podman diff lamel-c | sort
echo "== stopped and started again"
podman stop -t 0 lamel-c > /dev/null 2>&1
podman start lamel-c > /dev/null
podman exec lamel-c sh -c "$look" | md5sum
podman rm -f -t 0 lamel-c > /dev/null

echo "== the built image"
podman run --rm built sh -c "$look"
echo "== read-only"
podman run --rm --read-only built sh -c "$look; ! touch /data/x 2> /dev/null" | md5sum
echo "== the committed image"
podman run --rm committed sh -c "$look"

echo "== other owners"
case $KIND in
root) map='--uidmap 0:200000:65536 --gidmap 0:200000:65536' ;;
rootless) map='--userns=keep-id --user 0:0' ;;
esac
podman run --rm $map built sh -c "$look; touch /data/mine; stat -c %u:%g /data/mine"

echo "== buildah by hand"
work=$(buildah from built)
buildah run "$work" sh -c 'rm -r /data/keep && mkdir /data/keep && echo by hand > /data/keep/hand && chmod 711 /data/keep'
buildah copy "$work" "$CONTEXT/Containerfile" /data/keep/Containerfile > /dev/null
buildah run "$work" sh -c "$look"
buildah commit -q "$work" byhand > /dev/null
buildah rm "$work" > /dev/null
podman run --rm byhand sh -c "$look"
