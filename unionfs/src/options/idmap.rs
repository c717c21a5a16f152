//! `uidmapping=` and `gidmapping=`: triples `container:host:length` joined by colons.

use super::text::shown;
use super::{IdRange, OptionError};

/// The most ranges of one map, as in the kernel's `/proc/PID/uid_map`.
const MAX_RANGES: usize = 340;

/// Parses a map. containers/storage writes a colon before the first triple.
pub(super) fn parse(key: &[u8], value: &[u8]) -> Result<Vec<IdRange>, OptionError> {
    let bad = |why| OptionError::IdMap { name: shown(key), value: shown(value), why };
    let text = std::str::from_utf8(value).map_err(|_| bad("not a number"))?;
    let numbers = text
        .strip_prefix(':')
        .unwrap_or(text)
        .split(':')
        .map(|number| number.parse::<u32>().map_err(|_| bad("not a number")))
        .collect::<Result<Vec<u32>, _>>()?;
    if !numbers.len().is_multiple_of(3) {
        return Err(bad("the ids must come in triples container:host:length"));
    }
    if numbers.len() / 3 > MAX_RANGES {
        return Err(bad("more than 340 ranges"));
    }
    let mut ranges: Vec<IdRange> = Vec::with_capacity(numbers.len() / 3);
    for triple in numbers.chunks_exact(3) {
        let range = IdRange { container: triple[0], host: triple[1], len: triple[2] };
        if range.len == 0 {
            return Err(bad("a range of length 0"));
        }
        // The last id of all means "none" (-1) and cannot be mapped.
        let fits = |first: u32| first.checked_add(range.len).is_some();
        if !fits(range.container) || !fits(range.host) {
            return Err(bad("a range goes past the last id"));
        }
        let overlaps = |other: &IdRange| {
            meet(range.container, range.len, other.container, other.len)
                || meet(range.host, range.len, other.host, other.len)
        };
        if ranges.iter().any(overlaps) {
            return Err(bad("two ranges overlap"));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn meet(first: u32, len: u32, other: u32, other_len: u32) -> bool {
    first - other.min(first) < other_len && other - first.min(other) < len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(text: &str) -> Option<Vec<(u32, u32, u32)>> {
        let ranges = parse(b"uidmapping", text.as_bytes()).ok()?;
        Some(ranges.iter().map(|range| (range.container, range.host, range.len)).collect())
    }

    #[test]
    fn maps_as_podman_writes_them() {
        assert_eq!(map(":0:1:1000"), Some(vec![(0, 1, 1000)]));
        assert_eq!(map("0:1:1000"), Some(vec![(0, 1, 1000)]));
        assert_eq!(
            map(":0:1:2000:2000:0:1:2001:2001:63536"),
            Some(vec![(0, 1, 2000), (2000, 0, 1), (2001, 2001, 63536)])
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            ":",
            "0",
            "0:1",
            "0:1:0",
            "a:1:1",
            "0:1:-1",
            "0:0:4294967296",
            "4294967295:0:1",
            "0:1:10:5:100:1",
            "0:1:10:50:10:1",
            "0:1:1,",
            "0:1:1:",
        ] {
            assert_eq!(map(bad), None, "{bad:?}");
        }
        assert_eq!(map("4294967294:0:1"), Some(vec![(4_294_967_294, 0, 1)]));
    }

    proptest! {
        #[test]
        fn ranges_meet_as_sets_do(a in 0u32..40, n in 1u32..20, b in 0u32..40, m in 1u32..20) {
            let common = (a..a + n).any(|id| (b..b + m).contains(&id));
            prop_assert_eq!(meet(a, n, b, m), common);
        }
    }
}
