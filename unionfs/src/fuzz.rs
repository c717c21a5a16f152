//! What fuzz targets (`fuzz/` in the repository) need of the private parsers.

/// Reads a value as each of the marks that come from disk; panics if a result breaks a promise.
pub fn marks(value: &[u8]) {
    // The kernel never writes an origin longer than 255 bytes; others name nothing in the index.
    let name = crate::layer::index_name(value);
    let hex = name.as_encoded_bytes();
    assert_eq!(hex.len(), 2 * value.len());
    assert!(hex.iter().all(u8::is_ascii_hexdigit));
    if let Some(difference) = crate::whiteout::parse_nlink(value) {
        assert!(difference.abs() <= 0x1_0000);
    }
    if let Some(ino) = crate::whiteout::parse_ino(value) {
        assert!(crate::inode::is_plain_ino(ino));
    }
}
