//! Marks that only newer kernels write, made by hand: kernel overlayfs says what they mean.

use crate::{
    apart::{Place, apart},
    common::{Compare, Scratch, Subject, assert_same, dump_all, run_in},
};

/// Whiteouts without devices: an empty file with an xattr, in a directory whose opaque mark is `x`.
#[test]
fn xattr_whiteouts() {
    same_view(
        &xattr_whiteouts,
        r#"
        mkdir -p lower1/{d/sub,e} lower0/{d/sub,e}
        for f in a b c; do echo $f > lower1/d/$f; echo $f > lower1/e/$f; done
        echo s > lower1/d/sub/s; echo t > lower1/d/sub/t
        setfattr -n trusted.overlay.opaque -v x lower0/d
        setfattr -n trusted.overlay.opaque -v x lower0/d/sub
        for f in d/a d/sub/s; do : > lower0/$f; setfattr -n trusted.overlay.whiteout -v y lower0/$f; done
        echo not empty > lower0/d/b; setfattr -n trusted.overlay.whiteout -v y lower0/d/b
        : > lower0/d/c"#,
    );
}

/// The marks of a union inside a union, once and twice escaped.
#[test]
fn nested_marks() {
    same_view(
        &nested_marks,
        r#"
        mkdir -p lower1/{d,twice,f} lower0/{d,twice}
        echo d > lower1/d/below; echo t > lower1/twice/below; echo o > lower0/d/here; echo x > lower1/f/x
        setfattr -n trusted.overlay.overlay.opaque -v y lower0/d
        setfattr -n trusted.overlay.overlay.overlay.opaque -v y lower0/twice
        setfattr -n trusted.overlay.overlay.redirect -v /f lower0/d
        setfattr -n trusted.overlay.overlay.metacopy -v '' lower1/f/x"#,
    );
}

/// Redirects and metacopies inside the lowers, over several layers.
#[test]
fn redirects_between_lowers() {
    same_view(
        &redirects_between_lowers,
        r#"
        mkdir -p lower1/{real/sub,other} lower0/{moved,dir}
        echo data > lower1/real/sub/f; echo o > lower1/other/o; seq 1 5000 > lower1/real/data
        setfattr -n trusted.overlay.redirect -v /real lower0/moved; mknod lower0/real c 0 0
        setfattr -n trusted.overlay.redirect -v other lower0/dir; mknod lower0/other c 0 0
        truncate -s 23893 lower0/meta; chmod 4711 lower0/meta
        setfattr -n trusted.overlay.metacopy -v '' lower0/meta
        setfattr -n trusted.overlay.redirect -v /real/data lower0/meta"#,
    );
}

/// Shows the stack of two lowers by the kernel and by lamel, without and with an upper.
fn same_view<T>(test: &T, make: &str) {
    apart(test, Place::Root, || compare(make));
}

fn compare(make: &str) {
    let scratch = Scratch::new();
    scratch.lowers(2);
    run_in(scratch.path(), make);
    let how = Compare { holes: true, dir_mtime: true, ..Compare::CONTENT };
    for rw in [false, true] {
        let opts: &[&str] =
            if rw { &["redirect_dir=on", "metacopy=on"] } else { &["redirect_dir=follow", "metacopy=on"] };
        let mut kernel = Subject::overlayfs().mount(&scratch, 2, rw, opts);
        let want = dump_all(kernel.root());
        kernel.unmount();
        assert!(want.len() > 4, "the stack is not what it was meant to be: {:?}", want.keys());
        let mut lamel = Subject::lamel().mount(&scratch, 2, rw, &[]);
        let got = dump_all(lamel.root());
        lamel.unmount();
        assert_same(&format!("with an upper: {rw}"), &want, &got, how);
    }
}
