"""extract.py LAYER.tar DIR: extracts a layer, and turns its marks into kernel overlayfs's."""

import os
import subprocess
import sys

layer, place = sys.argv[1:]
os.makedirs(place)
subprocess.run(
    ["tar", "-xpf", layer, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", place], check=True)
for directory, _, files in os.walk(os.fsencode(place)):
    before = os.stat(directory)
    for name in files:
        if not name.startswith(b".wh."):
            continue
        os.unlink(os.path.join(directory, name))
        if name == b".wh..wh..opq":
            os.setxattr(directory, "trusted.overlay.opaque", b"y")
        else:
            os.mknod(os.path.join(directory, name[4:]), 0o020000, 0)
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
