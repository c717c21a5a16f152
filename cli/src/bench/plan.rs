//! What the generated tree consists of: pure data, the same for every run of one size.
//!
//! The shape is a root filesystem's: a few large directories and many small ones, files of 64 bytes to 16 KiB with some
//! large ones, a twelfth of symbolic links. A directory has a home layer, mostly that of its parent, as packages and build
//! steps put whole directories into an image; one file in twenty lies in another layer than its directory, one in fifty
//! replaces an older one of the bottom layer, and one in a hundred of the bottom layer is deleted by a whiteout.

use std::fmt::Write as _;

use super::random::Random;

/// How large the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    /// Seconds a backend: shows that everything works, and little about speed
    Small,
    /// A distribution's root filesystem
    Medium,
    /// Three of them
    Large,
}

/// The numbers of a size.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Shape {
    /// Directories below `root`.
    pub(crate) directories: usize,
    /// All objects below `root`.
    pub(crate) entries: usize,
    /// Files of the large directory.
    pub(crate) many: usize,
    /// Small files, in directories of 100.
    pub(crate) small: usize,
    /// Length of the large file.
    pub(crate) bulk: u64,
    /// Files of the git repository.
    pub(crate) repository: usize,
    /// Python modules.
    pub(crate) modules: usize,
    /// Objects that a workload makes, renames and removes.
    pub(crate) made: usize,
    /// Objects in the archive that is unpacked.
    pub(crate) archived: usize,
    /// Times that a cheap call is repeated to be measured.
    pub(crate) calls: usize,
}

impl Size {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// Runs of each workload unless said otherwise.
    pub(crate) fn repeat(self) -> usize {
        match self {
            Self::Small | Self::Large => 3,
            Self::Medium => 5,
        }
    }

    pub(crate) fn shape(self) -> Shape {
        let medium = Shape {
            directories: 2_400,
            entries: 38_000,
            many: 100_000,
            small: 10_000,
            bulk: 1 << 30,
            repository: 4_000,
            modules: 300,
            made: 5_000,
            archived: 11_000,
            calls: 20_000,
        };
        match self {
            Self::Small => Shape {
                directories: 60,
                entries: 800,
                many: 1_000,
                small: 200,
                bulk: 2 << 20,
                repository: 50,
                modules: 20,
                made: 100,
                archived: 200,
                calls: 500,
            },
            Self::Medium => medium,
            Self::Large => Shape {
                directories: 7_200,
                entries: 114_000,
                many: 300_000,
                small: 30_000,
                bulk: 3 << 30,
                repository: 12_000,
                made: 15_000,
                archived: 33_000,
                ..medium
            },
        }
    }
}

/// The layers' numbers count from the top; this one is the bottom, whatever their number.
pub(crate) const BOTTOM: usize = usize::MAX;

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Directory,
    /// Text of this length.
    File(usize),
    Link(String),
}

/// An object of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) body: Body,
    /// The layer that gives it.
    pub(crate) layer: usize,
    /// Whether the bottom layer has an older one of the same name.
    pub(crate) replaces: bool,
}

/// The whole tree, without what other programs make of it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the merged tree shows; a directory comes before what is in it.
    pub(crate) items: Vec<Item>,
    /// Files of the bottom layer that a whiteout in another one deletes.
    pub(crate) deleted: Vec<(String, usize)>,
}

/// Names below which the parts of the tree lie.
pub(crate) const ROOT: &str = "root";
pub(crate) const MANY: &str = "many";
pub(crate) const SMALL: &str = "small";
pub(crate) const PYTHON: &str = "python";

impl Plan {
    /// The tree of a shape in `layers` layers.
    pub(crate) fn new(shape: &Shape, layers: usize) -> Self {
        // Not one random number may depend on the number of layers: the merged tree and the bottom layer are the same
        // for all of them, and kept once.
        let mut plan = Self::default();
        let mut random = Random::new(0x006c_616d_656c);
        plan.root(shape, layers, &mut random);
        plan.small(shape, layers, &mut random);
        plan.many(shape, layers);
        plan.python(shape, layers);
        plan
    }

    fn push(&mut self, path: String, body: Body, layer: usize) {
        self.items.push(Item { path, body, layer, replaces: false });
    }

    fn root(&mut self, shape: &Shape, layers: usize, random: &mut Random) {
        let mut directories = vec![Directory { path: ROOT.to_owned(), parent: 0, depth: 0, home: BOTTOM }];
        self.push(ROOT.to_owned(), Body::Directory, BOTTOM);
        for number in 1..shape.directories {
            // The smaller of two: older, and nearer to the root.
            let mut parent = random.below(number).min(random.below(number));
            if number <= 20 {
                parent = 0;
            } else if directories[parent].depth > 8 {
                parent = directories[parent].parent;
            }
            let above = &directories[parent];
            let (inherits, bottom, pick) = (random.chance(80), random.chance(50), random.next());
            let home = if inherits {
                above.home
            } else if bottom {
                BOTTOM
            } else {
                layer(pick, layers)
            };
            let path = format!("{}/{}-{number:x}", above.path, word(random));
            self.push(path.clone(), Body::Directory, home);
            directories.push(Directory { path, parent, depth: above.depth + 1, home });
        }
        for number in 0..shape.entries.saturating_sub(shape.directories) {
            // Squared: a tenth of the directories holds a third of the files.
            let at = (random.unit().powi(2) * directories.len() as f64) as usize;
            let Some(directory) = directories.get(at) else { continue };
            let path = format!("{}/{}_{number:x}", directory.path, word(random));
            let (stays, kind, length, pick) = (random.chance(95), random.below(100), length(random), random.next());
            let (replaces, deleted) = (random.chance(2), random.chance(1));
            let layer_of = if stays { directory.home } else { layer(pick, layers) };
            let body = match (kind, self.items.last()) {
                (0..8, Some(last)) => Body::Link(last.path.rsplit('/').next().unwrap_or_default().to_owned()),
                _ => Body::File(length),
            };
            if deleted {
                self.deleted.push((format!("{path}.old"), layer(pick, layers)));
            }
            let replaces = replaces && matches!(body, Body::File(_)) && layer_of != BOTTOM;
            self.items.push(Item { path, body, layer: layer_of, replaces });
        }
    }

    fn small(&mut self, shape: &Shape, layers: usize, random: &mut Random) {
        self.push(SMALL.to_owned(), Body::Directory, BOTTOM);
        for directory in 0..shape.small.div_ceil(100) {
            let (bottom, pick) = (random.chance(50), random.next());
            let home = if bottom { BOTTOM } else { layer(pick, layers) };
            self.push(format!("{SMALL}/{directory:03}"), Body::Directory, home);
            for file in 0..(shape.small - directory * 100).min(100) {
                let length = 2048 + random.below(4096);
                self.push(format!("{SMALL}/{directory:03}/{}_{file:02}", word(random)), Body::File(length), home);
            }
        }
    }

    /// One file in a hundred is in the top layer: a merged directory.
    fn many(&mut self, shape: &Shape, layers: usize) {
        self.push(MANY.to_owned(), Body::Directory, BOTTOM);
        for file in 0..shape.many {
            let layer = if file % 100 == 50 { layer(0, layers) } else { BOTTOM };
            self.push(format!("{MANY}/entry-{file:07}"), Body::File(0), layer);
        }
    }

    /// Modules on a search path of ten directories.
    fn python(&mut self, shape: &Shape, layers: usize) {
        self.push(PYTHON.to_owned(), Body::Directory, BOTTOM);
        for directory in 0..10 {
            let home = if directory % 2 == 0 { BOTTOM } else { layer(directory, layers) };
            self.push(format!("{PYTHON}/{directory}"), Body::Directory, home);
            for module in (0..shape.modules).filter(|module| module % 10 == directory as usize) {
                self.push(format!("{PYTHON}/{directory}/module{module}.py"), Body::File(0), home);
            }
        }
    }
}

/// A directory below `root` while its files are dealt out.
#[derive(Debug)]
struct Directory {
    path: String,
    parent: usize,
    depth: usize,
    home: usize,
}

/// A layer above the bottom.
fn layer(pick: u64, layers: usize) -> usize {
    let above = u64::try_from(layers).unwrap_or(u64::MAX).saturating_sub(1).max(1);
    usize::try_from(pick % above).unwrap_or_default()
}

/// Most files are small, a few hold most of the bytes.
fn length(random: &mut Random) -> usize {
    let exponent = 6.0 + 8.0 * random.unit();
    let length = exponent.exp2();
    let large = random.chance(1);
    if large { (length * 16.0) as usize } else { length as usize }
}

fn word(random: &mut Random) -> String {
    const SYLLABLES: [&str; 16] = [
        "lib", "con", "share", "gen", "tex", "loc", "mod", "ker", "sys", "pro", "dat", "man", "doc", "net", "io", "bin",
    ];
    let mut word = String::new();
    for _ in 0..=random.below(3) {
        // Writing into a string cannot fail.
        write!(word, "{}", SYLLABLES[random.below(SYLLABLES.len())]).ok();
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_merged_tree_is_the_same_for_any_number_of_layers() {
        let shape = Size::Small.shape();
        let (few, many) = (Plan::new(&shape, 2), Plan::new(&shape, 64));
        let shown = |plan: &Plan| plan.items.iter().map(|i| (i.path.clone(), i.body.clone())).collect::<Vec<_>>();
        assert_eq!(shown(&few), shown(&many));
        let bottom = |plan: &Plan| {
            let items = plan.items.iter().filter(|i| i.layer == BOTTOM || i.replaces);
            items.map(|i| i.path.clone()).chain(plan.deleted.iter().map(|d| d.0.clone())).collect::<Vec<_>>()
        };
        assert_eq!(bottom(&few), bottom(&many));
    }

    #[test]
    fn the_tree_has_the_shape_that_is_claimed() {
        let shape = Size::Medium.shape();
        let plan = Plan::new(&shape, 5);
        let below = |part: &str| plan.items.iter().filter(|i| i.path.starts_with(&format!("{part}/"))).count();
        assert_eq!(below(ROOT) + 1, shape.entries);
        assert_eq!(below(MANY), shape.many);
        assert_eq!(below(SMALL), shape.small + shape.small / 100);
        let paths: HashSet<&str> = plan.items.iter().map(|i| i.path.as_str()).collect();
        assert_eq!(paths.len(), plan.items.len(), "names are unique");
        for layer in [0, 1, 2, 3, BOTTOM] {
            assert!(plan.items.iter().any(|i| i.layer == layer), "layer {layer} is empty");
        }
        assert!(plan.deleted.len() > 100 && plan.items.iter().filter(|i| i.replaces).count() > 100);
        assert!(plan.deleted.iter().all(|(_, layer)| *layer != BOTTOM));
    }
}
