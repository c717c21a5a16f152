//! The trees that the page draws, without what is too small to be seen.

use std::collections::BTreeMap;

use lamel_image::survey::{Fate, Seen};
use serde_json::{Value, json};

/// What is smaller than this part of its tree is drawn together with its neighbours of that kind.
const SMALLEST: u64 = 20_000;
/// Directories above one another that are told apart.
const DEEPEST: usize = 200;

/// A directory or file of a tree.
#[derive(Default)]
struct Node {
    below: BTreeMap<Vec<u8>, Node>,
    /// Bytes of it and of everything below it.
    bytes: u64,
    /// What became of a leaf.
    fate: Option<Fate>,
    /// The layer that it is from.
    layer: usize,
}

/// The tree of each layer, and the merged one.
pub(super) struct Trees {
    /// The tree that is grown, and the number of the one in the list.
    growing: (usize, Node),
    done: Vec<Value>,
    /// The merged tree's number.
    layers: usize,
}

impl Trees {
    pub(super) fn new(layers: usize) -> Self {
        Self { growing: (0, Node::default()), done: Vec::new(), layers }
    }

    /// Takes in an object; the objects of one tree come together, the merged tree last.
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        let number = seen.tree.unwrap_or(self.layers);
        while self.growing.0 < number {
            self.next();
        }
        let names: Vec<&[u8]> = seen.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let mut node = &mut self.growing.1;
        node.bytes = node.bytes.saturating_add(seen.bytes);
        for name in names {
            node = node.below.entry(name.to_vec()).or_default();
            node.bytes = node.bytes.saturating_add(seen.bytes);
        }
        node.layer = seen.layer;
        // What a layer puts in the place of what it deletes is what is seen of it.
        if seen.fate != Fate::Passed && (seen.fate != Fate::Removed || node.fate.is_none()) {
            node.fate = Some(seen.fate);
        }
    }

    fn next(&mut self) {
        let following = (self.growing.0 + 1, Node::default());
        let (number, node) = std::mem::replace(&mut self.growing, following);
        let smallest = node.bytes / SMALLEST;
        let name = if number == self.layers { "merged".to_owned() } else { (number + 1).to_string() };
        self.done.push(value(&name, &node, smallest, 0));
    }

    /// All trees, those of the layers first: name, bytes, fate, layer, and what is below, the largest first.
    pub(super) fn finish(mut self) -> Vec<Value> {
        while self.growing.0 <= self.layers {
            self.next();
        }
        self.done
    }
}

fn value(name: &str, node: &Node, smallest: u64, depth: usize) -> Value {
    let fate = match node.fate {
        Some(Fate::Added) => "added",
        Some(Fate::Changed) => "changed",
        Some(Fate::Removed) => "removed",
        Some(Fate::Passed) | None => "",
    };
    let below = node.below.iter().filter(|(_, node)| node.bytes > 0 && depth < DEEPEST);
    let (mut large, small): (Vec<_>, Vec<_>) = below.partition(|(_, node)| node.bytes >= smallest);
    large.sort_by_key(|(_, node)| std::cmp::Reverse(node.bytes));
    let shown = |name: &[u8]| String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}");
    let mut below: Vec<Value> =
        large.into_iter().map(|(name, node)| value(&shown(name), node, smallest, depth + 1)).collect();
    if !small.is_empty() {
        let bytes = small.iter().fold(0, |sum: u64, (_, node)| sum.saturating_add(node.bytes));
        below.push(json!([format!("… {} smaller ones", small.len()), bytes, "", node.layer, []]));
    }
    json!([name, node.bytes, fate, node.layer, below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_small_is_drawn_together() {
        let mut trees = Trees::new(1);
        let mut add = |tree, path: &str, fate, bytes| {
            trees.add(&Seen { tree, layer: 0, path: path.as_bytes(), fate, bytes });
        };
        add(Some(0), "/d", Fate::Passed, 0);
        add(Some(0), "/d/large", Fate::Added, 100_000);
        add(Some(0), "/d/a\nb", Fate::Added, 2);
        add(Some(0), "/d/c", Fate::Added, 1);
        add(Some(0), "/gone", Fate::Removed, 700);
        add(None, "/d/large", Fate::Added, 100_000);
        let trees = trees.finish();
        assert_eq!(
            trees[0],
            json!([
                "1",
                100_703,
                "",
                0,
                [
                    ["d", 100_003, "", 0, [["large", 100_000, "added", 0, []], ["… 2 smaller ones", 3, "", 0, []]]],
                    ["gone", 700, "removed", 0, []],
                ]
            ])
        );
        assert_eq!(
            trees[1],
            json!(["merged", 100_000, "", 0, [["d", 100_000, "", 0, [["large", 100_000, "added", 0, []]]]]])
        );
        assert_eq!(Trees::new(0).finish(), [json!(["merged", 0, "", 0, []])]);
    }
}
