//! Random cases. Few names, so that operations meet each other and the layers.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    case::{Case, Data, Entry, FallocateHow, Meta, Op, Opaque, OpenHow, RenameHow, SLOTS, What, XattrHow},
    layers::{retain_sensible, unite},
    runner::Quirks,
    tree::Body,
    world::World,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

pub fn cases() -> impl Strategy<Value = Case> {
    // Half of the stacks are such that the kernel's overlayfs can read them too, and half are without hard links.
    let (foreign, links) = (any::<bool>(), any::<bool>());
    (opts(), vec(vec(entry(), 0..16), 1..=4), vec(op(), 1..44), foreign, links).prop_map(
        |(opts, mut layers, ops, foreign, links)| {
            if !links {
                layers.iter_mut().for_each(|layer| layer.retain(|entry| !matches!(entry.what, What::Link { .. })));
            }
            retain_sensible(&mut layers, if foreign { &Quirks::LAMEL } else { &Quirks::OVERLAYFS });
            aim(Case { opts, layers, ops })
        },
    )
}

/// Options that change how lamel works and not what it shows.
fn opts() -> impl Strategy<Value = String> {
    const ALL: &[&str] = &[
        "volatile",
        "metacopy=off",
        "userxattr",
        "writeback=1",
        "io=handles",
        "io=handles,writeback=0",
        "io=passthrough",
    ];
    let choice = select(ALL);
    prop_oneof![3 => Just(String::new()), 2 => choice.prop_map(str::to_owned)]
}

/// What the path of an operation is aimed at. The strategy makes such a path as `?KINDn`, and [`aim`] puts the n-th
/// fitting path in its place, so that most operations do something; a fourth of all paths is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Any,
    File,
    NoDir,
    Dir,
    /// A name that is free, in a directory that exists.
    Free,
}

const AIMS: [(char, Aim); 5] =
    [('a', Aim::Any), ('f', Aim::File), ('n', Aim::NoDir), ('d', Aim::Dir), ('x', Aim::Free)];

fn at(aim: Aim) -> impl Strategy<Value = String> {
    let letter = AIMS.iter().find(|(_, a)| *a == aim).map_or('a', |(letter, _)| *letter);
    prop_oneof![
        3 => any::<u16>().prop_map(move |n| format!("?{letter}{n}")),
        1 => path(),
    ]
}

/// Plays the case on the model alone, to aim each operation at what is there by then.
fn aim(mut case: Case) -> Case {
    let quirks = Quirks::LAMEL;
    let mut world = World::new(unite(&case.layers, &quirks), quirks);
    for op in &mut case.ops {
        for path in op.paths_mut() {
            if let Some((aim, n)) = parse_aim(path) {
                *path = choose(&world, aim, n);
            }
        }
        // An operation that fails is as welcome as one that does not.
        let _outcome = world.apply(op);
    }
    case
}

fn parse_aim(path: &str) -> Option<(Aim, usize)> {
    let mut rest = path.strip_prefix('?')?.chars();
    let letter = rest.next()?;
    let aim = AIMS.iter().find(|(l, _)| *l == letter)?.1;
    Some((aim, rest.as_str().parse().ok()?))
}

fn choose(world: &World, aim: Aim, n: usize) -> String {
    let mut all = world.tree.paths();
    if aim == Aim::Free {
        let dirs = all.into_iter().filter(|(_, id)| world.tree.node(*id).is_dir());
        let free = |(dir, id): (String, usize)| {
            let names = NAMES.iter().filter(move |name| world.tree.child(id, name).is_none());
            names.map(move |name| if dir.is_empty() { (*name).to_owned() } else { format!("{dir}/{name}") })
        };
        all = dirs.flat_map(free).map(|path| (path, 0)).collect();
    } else {
        all.remove(0);
        all.retain(|(_, id)| match &world.tree.node(*id).body {
            Body::File(_) => aim != Aim::Dir,
            Body::Dir(_) => matches!(aim, Aim::Any | Aim::Dir),
            _ => matches!(aim, Aim::Any | Aim::NoDir),
        });
    }
    let chosen = all.into_iter().cycle().nth(n % 1009).map(|(path, _)| path);
    chosen.unwrap_or_else(|| NAMES[n % NAMES.len()].to_owned())
}

fn path() -> impl Strategy<Value = String> {
    let name = || select(&NAMES[..]);
    prop_oneof![
        5 => name().prop_map(str::to_owned),
        6 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

/// Never `..` or absolute: a walk must not leave the mount.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&NAMES[..]).prop_map(str::to_owned),
        2 => (select(&NAMES[..]), select(&NAMES[..])).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => Just("nowhere/far".to_owned()),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let len = prop_oneof![
        1 => Just(0_usize),
        6 => 1_usize..100,
        2 => 4_000_usize..9_000,
        1 => 60_000_usize..140_000,
    ];
    (1_u8..9, len).prop_map(|(tag, len)| Data { tag, len })
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0_u64), 4 => 0_u64..120, 2 => 4_000_u64..9_000, 1 => 60_000_u64..200_000]
}

fn file_mode() -> impl Strategy<Value = u32> {
    // No sticky world-writable directories: protected_regular would have a say.
    select(&[0o644_u32, 0o600, 0o755, 0o700, 0o4755, 0o2755, 0o2644, 0o000, 0o777, 0o1755][..])
}

fn create_mode() -> impl Strategy<Value = u32> {
    select(&[0o644_u32, 0o600, 0o755, 0o777, 0o000][..])
}

fn id() -> impl Strategy<Value = u32> {
    select(&[0_u32, 1, 1000][..])
}

fn meta() -> impl Strategy<Value = Meta> {
    (file_mode(), id(), id(), prop::option::weighted(0.3, 1_u8..9)).prop_map(|(mode, uid, gid, xattr)| Meta {
        mode,
        uid,
        gid,
        xattr,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let hole = prop_oneof![5 => Just(0_usize), 1 => 10_000_usize..70_000];
    let opaque = prop_oneof![6 => Just(Opaque::No), 1 => Just(Opaque::Xattr), 1 => Just(Opaque::WhFile)];
    let what = prop_oneof![
        8 => (meta(), data(), hole).prop_map(|(meta, data, hole)| What::File { meta, data, hole }),
        6 => (meta(), opaque).prop_map(|(meta, opaque)| What::Dir { meta, opaque }),
        2 => target().prop_map(|target| What::Symlink { target }),
        1 => meta().prop_map(|meta| What::Fifo { meta }),
        3 => path().prop_map(|old| What::Link { old }),
        2 => Just(What::Whiteout),
        1 => Just(What::WhFile),
    ];
    let anything = (path(), what).prop_map(|(path, what)| Entry { path, what });
    // Without some directories at the top most paths would lead nowhere.
    let dir = (select(&NAMES[..]), meta())
        .prop_map(|(name, meta)| Entry { path: name.to_owned(), what: What::Dir { meta, opaque: Opaque::No } });
    prop_oneof![5 => anything, 1 => dir]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => names(),
        8 => renames(),
        8 => contents(),
        7 => attributes(),
        8 => handles(),
        1 => at(Aim::Dir).prop_map(|path| Op::Readdir { path }),
        2 => remounts(),
    ]
}

fn remounts() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Remount),
        2 => Just(Op::PushDown),
        2 => Just(Op::Kill),
        2 => Just(Op::Kernel),
        3 => Just(Op::DropCaches),
    ]
}

fn names() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (at(Aim::Free), create_mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        1 => (at(Aim::Free), create_mode()).prop_map(|(path, mode)| Op::Mkfifo { path, mode }),
        1 => (at(Aim::Free), target()).prop_map(|(path, target)| Op::Symlink { path, target }),
        4 => (at(Aim::NoDir), at(Aim::Free)).prop_map(|(old, new)| Op::Link { old, new }),
        5 => at(Aim::NoDir).prop_map(|path| Op::Unlink { path }),
        3 => at(Aim::Dir).prop_map(|path| Op::Rmdir { path }),
    ]
}

fn renames() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        5 => Just(RenameHow::Plain),
        1 => Just(RenameHow::NoReplace),
        2 => Just(RenameHow::Exchange),
    ];
    let to = || prop_oneof![2 => at(Aim::Free), 2 => at(Aim::Any)];
    prop_oneof![
        2 => (at(Aim::Any), to(), how.clone()),
        1 => (at(Aim::Dir), to(), how.clone()),
        1 => (at(Aim::NoDir), at(Aim::NoDir), how),
    ]
    .prop_map(|(old, new, how)| Op::Rename { old, new, how })
}

fn contents() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (prop_oneof![2 => at(Aim::Free), 1 => at(Aim::File)], create_mode(), any::<bool>(), any::<bool>(), data())
            .prop_map(|(path, mode, excl, trunc, data)| Op::Create { path, mode, excl, trunc, data }),
        3 => (at(Aim::File), offset(), data()).prop_map(|(path, at, data)| Op::Write { path, at, data }),
        2 => (at(Aim::File), data()).prop_map(|(path, data)| Op::Append { path, data }),
        2 => (at(Aim::File), offset()).prop_map(|(path, len)| Op::Truncate { path, len }),
    ]
}

fn attributes() -> impl Strategy<Value = Op> {
    let name = || select(&["user.k", "user.l"][..]).prop_map(str::to_owned);
    let value = (1_u8..9, 0_usize..40).prop_map(|(tag, len)| Data { tag, len });
    let how = prop_oneof![4 => Just(XattrHow::Any), 1 => Just(XattrHow::Create), 1 => Just(XattrHow::Replace)];
    prop_oneof![
        4 => (at(Aim::Any), file_mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        3 => (at(Aim::Any), id(), prop::option::of(id())).prop_map(|(path, uid, gid)| Op::Chown { path, uid, gid }),
        3 => (at(Aim::Any), 0_i64..2_000_000_000, 0_u32..1_000_000_000)
            .prop_map(|(path, secs, nanos)| Op::Utimens { path, secs, nanos }),
        3 => (at(Aim::Any), name(), value, how)
            .prop_map(|(path, name, value, how)| Op::SetXattr { path, name, value, how }),
        2 => (at(Aim::Any), name()).prop_map(|(path, name)| Op::RemoveXattr { path, name }),
    ]
}

fn handles() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let fallocate = select(&[FallocateHow::Extend, FallocateHow::KeepSize, FallocateHow::PunchHole][..]);
    let how = prop_oneof![
        4 => Just(OpenHow::Read),
        1 => Just(OpenHow::Write),
        4 => Just(OpenHow::ReadWrite),
        1 => Just(OpenHow::Append),
        1 => Just(OpenHow::Truncate),
        2 => Just(OpenHow::Create),
    ];
    prop_oneof![
        5 => (slot(), at(Aim::File), how).prop_map(|(slot, path, how)| Op::Open { slot, path, how }),
        4 => (slot(), offset(), data()).prop_map(|(slot, at, data)| Op::HWrite { slot, at, data }),
        4 => slot().prop_map(|slot| Op::HRead { slot }),
        1 => (slot(), offset()).prop_map(|(slot, len)| Op::HTruncate { slot, len }),
        1 => (slot(), file_mode()).prop_map(|(slot, mode)| Op::HChmod { slot, mode }),
        1 => slot().prop_map(|slot| Op::HFsync { slot }),
        1 => slot().prop_map(|slot| Op::HClose { slot }),
        1 => (slot(), fallocate, offset(), offset())
            .prop_map(|(slot, how, at, len)| Op::HFallocate { slot, how, at, len }),
        1 => (slot(), slot(), offset(), offset(), offset())
            .prop_map(|(from, to, from_at, to_at, len)| Op::HCopy { from, to, from_at, to_at, len }),
    ]
}
