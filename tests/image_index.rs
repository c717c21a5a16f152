//! Layer tars against what others make of them: the tables of archives that image tools write and that attackers do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

#[path = "image/forge.rs"]
mod forge;
#[path = "image/survey.rs"]
mod survey;
#[path = "image/table.rs"]
mod table;

use forge::{Forge, Head};
use lamel_image::index::Limits;
use lamel_image::stack::LayerFiles;
use table::{listing, open, stacked, store};

/// The tree of an archive that is taken.
#[track_caller]
fn tree(tar: &[u8]) -> String {
    listing(&open(tar, &Limits::default()).unwrap())
}

/// Why an archive is refused.
#[track_caller]
fn refusal(tar: &[u8]) -> String {
    match open(tar, &Limits::default()) {
        Ok(layer) => panic!("taken:\n{}", listing(&layer)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_type_has_its_attributes() {
    let tar = Forge::new()
        .dir("d/")
        .file("d/f", "hello")
        .raw(Head::new(b'0', b"suid").mode(0o4755).owner(1000, 1001), b"")
        .symlink("l", "d/f")
        .hard("h", "d/f")
        .raw(Head::new(b'3', b"null").octal(329, 8, 1).octal(337, 8, 3), b"")
        .raw(Head::new(b'4', b"disk").octal(329, 8, 8).octal(337, 8, 1), b"")
        .raw(&Head::new(b'6', b"fifo"), b"")
        .end();
    assert_eq!(
        tree(&tar),
        "/d 40750 7:8\n\
         /d/f 100644 0:0 links=2 ino=6 \"hello\"\n\
         /disk 60644 0:0 device 801\n\
         /fifo 10644 0:0\n\
         /h 100644 0:0 links=2 ino=6 \"hello\"\n\
         /l 120777 0:0 -> d/f\n\
         /null 20644 0:0 device 103\n\
         /suid 104755 1000:1001 \"\"\n"
    );
}

#[test]
fn the_last_of_several_entries_counts() {
    let tar = Forge::new().file("f", "old").hard("g", "f").file("f", "new").end();
    assert_eq!(tree(&tar), "/f 100644 0:0 \"new\"\n/g 100644 0:0 \"old\"\n");
    let tar = Forge::new().dir("d").file("d/f", "x").raw(Head::new(b'5', b"./d/").mode(0o700), b"").end();
    assert_eq!(tree(&tar), "/d 40700 0:0\n/d/f 100644 0:0 \"x\"\n");
    let tar = Forge::new().file("d/e/f", "x").file("d", "file").end();
    assert_eq!(tree(&tar), "/d 100644 0:0 \"file\"\n");
    let tar = Forge::new().symlink("d", "e").dir("d").file("d/f", "x").end();
    assert_eq!(tree(&tar), "/d 40750 7:8\n/d/f 100644 0:0 \"x\"\n");
}

#[test]
fn names_stay_inside_the_layer() {
    let old = Forge::new().raw(&Head::new(0, b"/abs//./f/"), b"");
    assert_eq!(tree(&old.end()), "/abs 40755 0:0\n/abs/f 40644 0:0\n");
    assert_eq!(tree(&Forge::new().file("a/../b", "x").end()), "/b 100644 0:0 \"x\"\n");
    for outside in ["../x", "a/../../x", "/../x", "..", "a/b/../../.."] {
        assert!(refusal(&Forge::new().file(outside, "x").end()).contains("leads out of the layer"), "{outside}");
        assert!(refusal(&Forge::new().file("x", "").hard("y", outside).end()).contains("leads out"), "{outside}");
    }
    let tar = Forge::new().dir("etc").symlink("out", "/../../etc").file("out/f", "x").end();
    assert_eq!(tree(&tar), "/etc 40750 7:8\n/etc/f 100644 0:0 \"x\"\n/out 120777 0:0 -> /../../etc\n");
    let tar = Forge::new().symlink("a", "b").symlink("b", "new/../deep").file("a/f", "x").end();
    assert!(tree(&tar).contains("/deep/f 100644 0:0 \"x\"\n"));
    assert!(refusal(&Forge::new().symlink("a", "b").symlink("b", "a").file("a/f", "x").end()).contains("loop"));
    assert!(refusal(&Forge::new().file("a", "").file("a/f", "x").end()).contains("no directory"));
    assert!(refusal(&Forge::new().dir("./").raw(&Head::new(b'2', b"."), b"").end()).contains("root"));
}

#[test]
fn hard_links_lead_to_what_the_layer_has() {
    assert!(refusal(&Forge::new().hard("h", "f").file("f", "").end()).contains("before it"));
    assert!(refusal(&Forge::new().dir("d").hard("h", "d").end()).contains("to a directory"));
    let tar = Forge::new().symlink("l", "/etc/shadow").hard("h", "l").end();
    assert_eq!(tree(&tar), "/h 120777 0:0 links=2 ino=3 -> /etc/shadow\n/l 120777 0:0 links=2 ino=3 -> /etc/shadow\n");
}

#[test]
fn whiteouts_are_facts_of_the_layer() {
    let tar = Forge::new()
        .file(".wh.gone", "")
        .dir("d")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.f", "")
        .file("d/f", "new")
        .file("n/.wh.x", "")
        .file(".wh..wh.aufs", "")
        .file(".wh..wh.plnk/1.2", "")
        .file("gone/.wh.under", "")
        .raw(&Head::new(b'3', b"dev"), b"")
        .end();
    assert_eq!(
        tree(&tar),
        "/d 40750 7:8 opaque\n/d/f 100644 0:0 hides \"new\"\n/dev whiteout\n/gone whiteout\n/n 40755 0:0\n/n/x whiteout\n"
    );
    for bad in [".wh.", "d/.wh..", ".wh..."] {
        assert!(refusal(&Forge::new().file(bad, "").end()).contains("names no entry"), "{bad}");
    }
    assert!(refusal(&Forge::new().file(".wh.d/f", "").end()).contains("under the name of a whiteout"));
    assert!(open(&Forge::new().file(".wh..wh..opq", "").end(), &Limits::default()).is_ok());
}

#[test]
fn extended_headers_say_more_than_a_block_holds() {
    let long = "n".repeat(200);
    let tar = Forge::new()
        .side(b'L', format!("{long}\0").as_bytes())
        .file("cut", "gnu")
        .pax(&[("path", b"p/\xff\n=x"), ("uid", b"70000"), ("gid", b"4294967294"), ("SCHILY.xattr.user.a", b"b\nc\0d")])
        .file("cut", "pax")
        .pax(&[("linkpath", b"far"), ("path", b"s")])
        .symlink("x", "y")
        .end();
    assert_eq!(
        tree(&tar),
        format!(
            "/{long} 100644 0:0 \"gnu\"\n/p 40755 0:0\n\
             /p/\u{fffd}\n=x 100644 70000:4294967294 \"pax\" user.a=b\\nc\\x00d\n/s 120777 0:0 -> far\n"
        )
    );
    // The size of the record frames the data, not the block's: what lies within is no header.
    let inner = Forge::new().file("smuggled", "x").0;
    let size = inner.len().to_string();
    let tar = Forge::new().pax(&[("size", size.as_bytes())]).raw(&Head::new(b'0', b"outer"), &inner).end();
    assert!(!tree(&tar).contains("/smuggled"));
    let tar = Forge::new().raw(Head::new(b'0', b"big").put(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03"), b"abc").end();
    assert_eq!(tree(&tar), "/big 100644 0:0 \"abc\"\n");
}

#[test]
fn marks_from_an_archive_are_not_believed() {
    let records: [(&str, &[u8]); 5] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.containers.override_stat", b"0:0:4755"),
        ("SCHILY.xattr.security.fuseoverlayfs.override_stat", b"0:0:4755"),
        ("SCHILY.xattr.user.plain", b"v"),
    ];
    assert_eq!(tree(&Forge::new().pax(&records).dir("d").end()), "/d 40750 7:8 user.plain=v\n");
    assert!(!lamel_unionfs::layer::Layer::is_trusted(&open(&Forge::new().end(), &Limits::default()).unwrap()));
}

#[test]
fn sparse_files_of_every_form() {
    let data = "abcd".repeat(256);
    let mut head = Head::new(b'S', b"gnu");
    head.gnu().size(1024).octal(483, 12, 8192);
    head.octal(386, 12, 512).octal(398, 12, 512).octal(410, 12, 4096).octal(422, 12, 512);
    head.octal(434, 12, 8192).octal(446, 12, 0);
    let old = Forge::new().raw(&head, data.as_bytes()).end();
    let wanted = |name: &str| format!("/{name} 100644 0:0 sparse 2 of 8192\n");
    assert_eq!(tree(&old), wanted("gnu"));
    let pairs: [(&str, &[u8]); 7] = [
        ("GNU.sparse.size", b"8192"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"512"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"512"),
        ("path", b"first"),
    ];
    assert_eq!(tree(&Forge::new().pax(&pairs).file("x", &data).end()), wanted("first"));
    let listed: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", b"8192"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"512,512,4096,512"),
        ("GNU.sparse.name", b"second"),
    ];
    assert_eq!(tree(&Forge::new().pax(&listed).file("x", &data).end()), wanted("second"));
    let leading: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"8192"),
        ("GNU.sparse.name", b"third"),
    ];
    let map = format!("{:\0<512}{data}", "2\n512\n512\n4096\n512\n");
    assert_eq!(tree(&Forge::new().pax(&leading).file("x", &map).end()), wanted("third"));
    for wrong in ["2\n512\n512\n512\n512\n", "1\n512\n512\n", "1\n8000\n1024\n", "1\n0\n", "99999999\n", "x\n", ""] {
        let map = format!("{wrong:\0<512}{data}");
        let why = refusal(&Forge::new().pax(&leading).file("x", &map).end());
        assert!(["sparse", "number"].iter().any(|word| why.contains(word)), "{wrong:?}: {why}");
    }
}

#[test]
fn archives_that_readers_differ_in_are_refused() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("two names", Forge::new().side(b'L', b"a").pax(&[("path", b"b")]).file("c", "").end()),
        ("combine differently", Forge::new().pax(&[]).pax(&[]).file("c", "").end()),
        ("combine differently", Forge::new().side(b'L', b"a").side(b'L', b"b").file("c", "").end()),
        ("readers differ", Forge::new().side(b'g', &forge::record("size", b"1024")).file("c", "").end()),
        (
            "lone block of zeros",
            [&Forge::new().file("a", "").0[..], &[0; 512], &Forge::new().file("b", "").end()].concat(),
        ),
        ("ends in a slash", Forge::new().file("f/", "").end()),
        ("unknown type", Forge::new().raw(&Head::new(b'V', b"label"), b"").end()),
        ("unknown format", Forge::new().raw(Head::new(b'0', b"f").put(257, b"ustar\x0099"), b"").end()),
        ("cut off", Forge::new().file("f", "data").0[..514].to_vec()),
        ("cut off", Forge::new().file("f", "data").0[..300].to_vec()),
        ("checksum", vec![b'x'; 1024]),
        ("malformed number", Forge::new().raw(Head::new(b'0', b"f").put(124, b"-0000000001\0"), b"").end()),
        ("malformed number", Forge::new().raw(Head::new(b'0', b"f").put(124, &[0xff; 12]), b"").end()),
        ("beyond 32 bits", Forge::new().pax(&[("uid", b"4294967296")]).file("f", "").end()),
        ("beyond 32 bits", Forge::new().pax(&[("gid", b"4294967295")]).file("f", "").end()),
        ("device number", Forge::new().raw(Head::new(b'3', b"f").octal(329, 8, 4096), b"").end()),
        ("NUL", Forge::new().pax(&[("path", b"a\0b")]).file("f", "").end()),
        ("255 bytes", Forge::new().pax(&[("path", &[b'a'; 256])]).file("f", "").end()),
        ("empty target", Forge::new().symlink("l", "").end()),
    ];
    for (word, tar) in cases {
        let why = refusal(&tar);
        assert!(why.contains(word), "{word}: {why}");
    }
    // Cut off exactly where the padding of the last member would be: all readers take that.
    let whole = Forge::new().file("f", "data").0;
    let cut = whole.len() - 512 + 4;
    assert_eq!(tree(&whole[..cut]), "/f 100644 0:0 \"data\"\n");
    assert_eq!(tree(b""), "");
}

#[test]
fn bombs_are_refused_by_name() {
    let small = Limits {
        entries: 100,
        depth: 10,
        path: 2000,
        extended: 5000,
        xattrs: 3,
        xattr_value: 1000,
        extents: 4,
        symlinks: 50,
        index: 10_000,
        ..Limits::default()
    };
    let many = |count: usize, add: &dyn Fn(Forge, usize) -> Forge| (0..count).fold(Forge::new(), add).end();
    let xattr = |at: usize, len: usize| (format!("SCHILY.xattr.user.{at}"), vec![b'v'; len]);
    let with_xattrs = |count: usize, len: usize| {
        let all: Vec<_> = (0..count).map(|at| xattr(at, len)).collect();
        let all: Vec<(&str, &[u8])> = all.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        Forge::new().pax(&all).file("f", "").end()
    };
    let deep = "d/".repeat(20) + "f";
    let long = "x/".repeat(1500) + "f";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("100 entries", many(101, &|tar, at| tar.file(&at.to_string(), ""))),
        ("10 directories", Forge::new().file(&deep, "").end()),
        ("2000 bytes in a name", Forge::new().pax(&[("path", long.as_bytes())]).file("f", "").end()),
        ("2000 bytes in an extended header", Forge::new().side(b'L', &[b'x'; 2001]).file("f", "").end()),
        ("5000 bytes in an extended header", Forge::new().pax(&[("comment", &[b'x'; 5000])]).file("f", "").end()),
        ("3 xattrs", with_xattrs(4, 1)),
        ("1000 bytes in an xattr", with_xattrs(1, 1001)),
        ("4 stretches", Forge::new().pax(&[("GNU.sparse.map", b"0,1,2,1,4,1,6,1,8,1")]).file("f", "abcde").end()),
        (
            "50 steps through symlinks",
            many(99, &|tar, at| {
                if at == 0 { tar.symlink("s", "/") } else { tar.file(&format!("s/./{}/f", at % 9), "") }
            }),
        ),
        ("10000 bytes in the index", many(90, &|tar, at| tar.file(&format!("{at:090}"), ""))),
    ];
    for (word, tar) in cases {
        let why = open(&tar, &small).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why.contains(word), "{word}: {why:?}");
    }
    // By default a member may lie deep, but not without end.
    let endless = Forge::new().side(b'L', ("d/".repeat(5000) + "f").as_bytes()).file("f", "").end();
    assert!(refusal(&endless).contains("1024 directories above one another"));
}

#[test]
fn a_stack_is_merged_into_one_layer() {
    let bottom = Forge::new()
        .dir("d")
        .file("d/kept", "bottom")
        .file("d/over", "bottom")
        .file("d/gone", "bottom")
        .file("o/hidden", "bottom")
        .file("r/sub/f", "bottom")
        .file("t", "bottom")
        .file("u/x", "bottom")
        .file("h1", "linked")
        .hard("h2", "h1")
        .hard("h3", "h1")
        .end();
    let middle = Forge::new()
        .file("d/over", "middle")
        .file("d/.wh.gone", "")
        .dir("o")
        .file("o/.wh..wh..opq", "")
        .file("o/new", "middle")
        .file(".wh.r", "")
        .dir("t")
        .file("t/in", "middle")
        .file("u", "middle")
        .file(".wh.h2", "")
        .end();
    let top = Forge::new().file("d/top", "top").dir("r").file("r/again", "top").file("u/y", "top").end();
    let merged = stacked(&[&bottom, &middle, &top]);
    assert_eq!(
        listing(&merged),
        "/d 40750 7:8\n/d/kept 100644 0:0 \"bottom\"\n/d/over 100644 0:0 \"middle\"\n/d/top 100644 0:0 \"top\"\n\
         /h1 100644 0:0 links=2 ino=4 \"linked\"\n/h3 100644 0:0 links=2 ino=4 \"linked\"\n\
         /o 40750 7:8\n/o/new 100644 0:0 \"middle\"\n\
         /r 40750 7:8\n/r/again 100644 0:0 \"top\"\n\
         /t 40750 7:8\n/t/in 100644 0:0 \"middle\"\n/u 40755 0:0\n/u/y 100644 0:0 \"top\"\n"
    );
    // What a layer does not list, it does not change: the mode of d is the bottom layer's.
    assert_eq!(listing(&stacked(&[&bottom])), listing(&open(&bottom, &Limits::default()).unwrap()));
    let empty = Forge::new().file(".wh..wh..opq", "").end();
    assert_eq!(listing(&stacked(&[&bottom, &empty, &top])), listing(&stacked(&[&top])));
}

#[test]
fn an_index_is_checked_when_it_is_opened() {
    let (tar, other) = (Forge::new().file("f", "data").end(), Forge::new().file("g", "data").end());
    let dir = tempfile::tempdir().unwrap();
    let [files, foreign] = &store(dir.path(), &[&tar, &other])[..] else { panic!() };
    let why = |files: &LayerFiles| files.layer().err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(why(files), "");
    assert!(why(&LayerFiles { index: foreign.index.clone(), ..files.clone() }).contains("of another layer"));
    let whole = std::fs::read(&files.index).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&files.index, &bytes).unwrap();
        assert!(why(files).contains("lamel verify"), "byte {at}: {}", why(files));
        std::fs::write(&files.index, &whole[..at]).unwrap();
        assert!(why(files).contains("damaged"), "cut at {at}");
    }
    std::fs::write(&files.index, &whole).unwrap();
    std::fs::write(&files.tar, &tar[..600]).unwrap();
    assert!(why(files).contains("has 600 bytes"));
}
