//! The promises of an index, for the fuzz targets.

use std::collections::HashSet;

use super::format::{CHECKSUM_AT, HEADER, MAGIC, VERSION};
use super::limits::Limits;
use super::merge::merge;
use super::read::{Damaged, Index, ROOT};
use crate::Digest;

/// An index that was just built is right in every part, and so is the merged one of it on itself.
pub(crate) fn hold(bytes: &[u8], diff_ids: &[Digest], tar: u64) {
    let index = Index::check(bytes, diff_ids);
    let index = index.unwrap_or_else(|error| panic!("an index that was just built is refused: {error}"));
    walk(&index, Some(tar)).unwrap_or_else(|Damaged(part)| panic!("{part} of an index that was just built is damaged"));
    let merged = merge(&[&index, &index], &Limits::default());
    let merged = merged.unwrap_or_else(|error| panic!("an index cannot be merged with itself: {error}"));
    let mut bytes = Vec::new();
    let twice = [diff_ids, diff_ids].concat();
    merged.write_stack(&twice, &mut bytes).unwrap_or_else(|error| unreachable!("memory is not full: {error}"));
    let index = Index::check(bytes, &twice);
    let index = index.unwrap_or_else(|error| panic!("a merged index that was just built is refused: {error}"));
    walk(&index, Some(tar)).unwrap_or_else(|Damaged(part)| panic!("{part} of a merged index is damaged"));
}

/// A file that anybody has written: it gives errors, and nothing else.
pub(crate) fn changed(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let Some(header) = bytes.first_chunk_mut::<HEADER>() else { return };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let checksum = crc32fast::hash(&bytes);
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    // The layers that it says it is of.
    let ids = |count: usize| -> Option<Vec<Digest>> {
        let records = bytes.get(HEADER..)?.chunks_exact(40).take(count);
        let ids: Vec<Digest> = records.filter_map(|record| Some(Digest::from_bytes(*record.first_chunk()?))).collect();
        (ids.len() == count).then_some(ids)
    };
    let Some(ids) = (1..=3).filter_map(ids).find(|ids| Index::check(&bytes, ids).is_ok()) else { return };
    let Ok(index) = Index::check(&bytes, &ids) else { return };
    walk(&index, None).ok();
    if ids.len() == 1 {
        let limits = Limits { entries: 5000, ..Limits::default() };
        merge(&[&index, &index], &limits).ok();
    }
}

/// Looks at everything, each directory once. In an index that was just built, data lies in a tar of `tar` bytes.
fn walk<B: AsRef<[u8]>>(index: &Index<B>, tar: Option<u64>) -> Result<(), Damaged> {
    let mut seen = HashSet::from([ROOT]);
    let mut todo = vec![ROOT];
    while let Some(dir) = todo.pop() {
        let mut last: Option<Vec<u8>> = None;
        for entry in index.entries(dir)? {
            let entry = entry?;
            if tar.is_some() {
                assert!(!entry.name.is_empty() && entry.name != b"." && entry.name != b"..");
                assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0));
                assert!(last.as_deref() < Some(entry.name), "names are in order, and none comes twice");
                assert_eq!(index.find(dir, entry.name)?, Some(entry));
                last = Some(entry.name.to_vec());
            }
            let Some(number) = entry.inode else { continue };
            let inode = index.child(dir, number)?;
            let fits = |from: u64, len: u64| tar.is_none_or(|tar| from.checked_add(len).is_some_and(|end| end <= tar));
            match inode.format() {
                libc::S_IFDIR if seen.insert(number) => todo.push(number),
                libc::S_IFDIR => assert!(tar.is_none(), "a directory has one name"),
                libc::S_IFREG if inode.is_sparse() => {
                    assert!(index.extents(&inode)?.iter().all(|extent| fits(extent.from, extent.len)));
                }
                libc::S_IFREG => {
                    let (from, len) = index.data(&inode)?;
                    assert!(fits(from, len));
                }
                libc::S_IFLNK => assert!(!index.target(&inode)?.contains(&0) || tar.is_none()),
                _ => {}
            }
            index.xattrs(&inode).try_for_each(|xattr| xattr.map(drop))?;
        }
    }
    Ok(())
}
