//! The known name that somebody meant.

/// Names longer than this are no typing mistakes.
const LONGEST: usize = 40;

/// The nearest of `known`, unless all are too far to have been meant.
pub(super) fn nearest(given: &[u8], known: &[&'static str]) -> Option<&'static str> {
    if given.is_empty() || given.len() > LONGEST {
        return None;
    }
    known
        .iter()
        .map(|name| (distance(given, name.as_bytes()), *name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(given.len()).div_ceil(2))
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and exchanges of neighbours that make `b` of `a`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before_last[j - 1] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in
            [("", "", 0), ("", "ab", 2), ("lowerdri", "lowerdir", 1), ("lowrdir", "lowerdir", 1), ("ro", "rw", 1)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), want, "{a} {b}");
            assert_eq!(distance(b.as_bytes(), a.as_bytes()), want, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_named() {
        let known = ["lowerdir", "upperdir", "volatile"];
        assert_eq!(nearest(b"lowrdir", &known), Some("lowerdir"));
        assert_eq!(nearest(b"volatil", &known), Some("volatile"));
        assert_eq!(nearest(b"qqqqqqqq", &known), None);
        assert_eq!(nearest(&[b'a'; 4000], &known), None);
    }
}
