"""Images in shapes that no installed tool writes, or none quickly.

shapes.py docker24 DIR        an unpacked docker-archive becomes one with a directory for each layer
shapes.py docker25 DIR        an OCI layout of one image becomes one that Docker loads too
shapes.py recompress DIR HOW  the layers of an OCI layout's only image become plain, or are compressed by zstd
shapes.py settle DIR          the configuration of an OCI layout's only image names the tars that its zstd layers hold
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys


def place(descriptor):
    return "blobs/sha256/" + descriptor["digest"][7:]


def read(name):
    with open(name) as file:
        return json.load(file)


def write(name, value):
    with open(name, "w") as file:
        json.dump(value, file)


def put(value):
    """Adds a document; its descriptor without a type."""
    text = json.dumps(value).encode()
    digest = hashlib.sha256(text).hexdigest()
    with open("blobs/sha256/" + digest, "wb") as file:
        file.write(text)
    return {"digest": "sha256:" + digest, "size": len(text)}


def docker24():
    items = read("manifest.json")
    repositories = {}
    for item in items:
        layers = item["Layers"]
        for number, layer in enumerate(layers):
            name = f"{number:064x}"
            os.makedirs(name)
            shutil.copy(os.path.realpath(layer), name + "/layer.tar")
            write(name + "/VERSION", 1.0)
            parent = {"parent": f"{number - 1:064x}"} if number else {}
            step = {"container_config": {"Cmd": ["step", str(number)]}, "config": {"Cmd": ["sh"]}, "os": "linux"}
            write(name + "/json", {"id": name, "architecture": "amd64", **parent, **step})
            layers[number] = name + "/layer.tar"
        for tag in item["RepoTags"]:
            repository, tag = tag.rsplit(":", 1)
            repositories.setdefault(repository, {})[tag] = f"{len(layers) - 1:064x}"
    for name in os.listdir("."):
        if os.path.islink(name) or name.endswith(".tar"):
            os.remove(name)
    write("manifest.json", items)
    write("repositories", repositories)


def docker25(name):
    index = read("index.json")
    [image] = index["manifests"]
    image["annotations"] = {
        "io.containerd.image.name": "docker.io/" + name,
        "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
    }
    manifest = read(place(image))
    write("index.json", index)
    layers = [place(layer) for layer in manifest["layers"]]
    write("manifest.json", [{"Config": place(manifest["config"]), "RepoTags": [name], "Layers": layers}])


def change(edit):
    """Changes the manifest and the configuration of the only image."""
    index = read("index.json")
    [image] = index["manifests"]
    manifest = read(place(image))
    config = read(place(manifest["config"]))
    edit(manifest, config)
    manifest["config"].update(put(config))
    image.update(put(manifest))
    write("index.json", index)


def recompress(how):
    def edit(manifest, _):
        for layer in manifest["layers"]:
            with open(place(layer), "rb") as packed:
                plain = subprocess.run(["gzip", "-dc"], stdin=packed, stdout=subprocess.PIPE, check=True).stdout
            command = {"plain": ["cat"], "zstd": ["zstd", "-q", "-1"]}[how]
            blob = subprocess.run(command, input=plain, stdout=subprocess.PIPE, check=True).stdout
            os.remove(place(layer))
            suffix = {"plain": "", "zstd": "+zstd"}[how]
            digest = "sha256:" + hashlib.sha256(blob).hexdigest()
            layer.update(mediaType="application/vnd.oci.image.layer.v1.tar" + suffix, digest=digest, size=len(blob))
            with open(place(layer), "wb") as file:
                file.write(blob)

    change(edit)


def settle():
    def edit(manifest, config):
        for number, layer in enumerate(manifest["layers"]):
            command = f"zstd -qdc {place(layer)} | sha256sum"
            digest = subprocess.run(command, shell=True, stdout=subprocess.PIPE, check=True).stdout.decode().split()[0]
            config["rootfs"]["diff_ids"][number] = "sha256:" + digest

    change(edit)


what, directory, *more = sys.argv[1:]
os.chdir(directory)
{"docker24": docker24, "docker25": docker25, "recompress": recompress, "settle": settle}[what](*more)
