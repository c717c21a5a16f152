//! Layers of a saved image as text, a line for each entry.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

/// Times before this (2003) were set by a step, later ones by the clock.
const CLOCK: u64 = 1_040_000_000;

/// The entries of every layer of a docker-archive but the first, which is the base, sorted within each layer.
pub(crate) fn listing(archive: &Path) -> Vec<String> {
    let mut files = BTreeMap::new();
    for entry in Archive::new(File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        if entry.header().entry_type() == EntryType::Regular {
            entry.read_to_end(&mut bytes).unwrap();
        }
        files.insert(name, bytes);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let mut out = Vec::new();
    for (n, layer) in layers.iter().enumerate().skip(1) {
        let mut lines: Vec<String> = Archive::new(files[layer.as_str().unwrap()].as_slice())
            .entries()
            .unwrap()
            .map(|entry| format!("{n} {}", line(entry.unwrap())))
            .collect();
        lines.sort();
        out.append(&mut lines);
    }
    out
}

fn line(mut entry: tar::Entry<'_, impl Read>) -> String {
    let mut xattrs = Vec::new();
    if let Some(records) = entry.pax_extensions().unwrap() {
        for record in records {
            let record = record.unwrap();
            if let Some(name) = record.key().unwrap().strip_prefix("SCHILY.xattr.") {
                xattrs.push(format!(" {name}={}", record.value_bytes().escape_ascii()));
            }
        }
    }
    xattrs.sort();
    let header = entry.header().clone();
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    let hash = Sha256::digest(&content);
    let link = entry.link_name().unwrap().map(|l| format!(" -> {}", l.display()));
    let time = header.mtime().unwrap();
    format!(
        "{} {:?} {:o} {}:{} {}{}{}{} {:02x}{:02x}{:02x}{:02x}",
        entry.path().unwrap().display(),
        header.entry_type(),
        header.mode().unwrap(),
        header.uid().unwrap(),
        header.gid().unwrap(),
        content.len(),
        link.unwrap_or_default(),
        if time < CLOCK { format!(" @{time}") } else { String::new() },
        xattrs.concat(),
        hash[0],
        hash[1],
        hash[2],
        hash[3],
    )
}
