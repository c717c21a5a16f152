//! mount(8) and its helper.

use super::*;

fn helper(s: &Scratch, words: &str) -> Outcome {
    let mut command = named(s, "mount.fuse.lamel");
    command.args(words.split_whitespace());
    run(command)
}

#[test]
fn the_helper_mounts() {
    let s = scratch();
    let out = helper(&s, &format!("some-source mnt -n -o rw,{STACK} -t fuse.lamel"));
    assert!(out.success(), "{}", out.stderr);
    assert!(mounts(&s)[0].contains("- fuse.lamel some-source "), "{:?}", mounts(&s));
    fs::write(s.join("mnt/new"), "x").unwrap();
    succeeds(&s, "umount mnt");
}

/// mount(8) itself, which looks for the helper in /sbin and nowhere else: in a mount namespace of its own.
#[test]
fn mount_8_mounts_by_type_and_by_fstab() {
    let s = scratch();
    drop(named(&s, "mount.fuse.lamel"));
    let base = s.path().display();
    fs::write(s.join("fstab"), format!("over {base}/mnt fuse.lamel lowerdir={base}/lower0,noauto,nofail 0 0\n"))
        .unwrap();
    let script = format!(
        "mkdir sbin; mount -t tmpfs sbin sbin; mkdir sbin/u sbin/w
         mount -t overlay -o lowerdir=/usr/sbin,upperdir=sbin/u,workdir=sbin/w sbin /usr/sbin
         cp -a bin/mount.fuse.lamel /usr/sbin/
         mount -t fuse.lamel src mnt -o {STACK},nodev,user,x-gvfs-hide; cat mnt/file; echo changed > mnt/file
         grep -c \"$PWD/mnt .*nodev.* - fuse.lamel src \" /proc/self/mountinfo; umount mnt
         mount -T fstab $PWD/mnt; cat mnt/file; umount mnt
         mount -t fuse.lamel src mnt -o lowrdir=lower0 || echo $?
         mount -t fuse.lamel src mnt -o lowerdir=missing || echo $?"
    );
    let mut command = program(&s, Path::new("unshare"));
    command.args(["-m", "--propagation", "private", "bash", "-euc", &script]);
    let out = run(command);
    assert!(out.success(), "{}", out.stderr);
    assert_eq!(out.stdout, "lower\n1\nlower\n1\n32\n");
    assert!(out.stderr.contains("did you mean \"lowerdir\"?") && out.stderr.contains("missing"), "{}", out.stderr);
    eventually("it is written", || fs::read_to_string(s.join("upper/file")).is_ok_and(|text| text == "changed\n"));
}

#[test]
fn the_helper_s_exit_codes_are_those_of_mount() {
    let s = scratch();
    for (words, code, message) in [
        ("src mnt -o lowerdir=missing", 32, "missing"),
        ("src nowhere -o lowerdir=lower0", 32, "nowhere"),
        ("src mnt -o lowrdir=lower0", 1, "lowerdir"),
        ("src", 1, "usage"),
        ("src mnt -x", 1, "usage"),
    ] {
        let out = helper(&s, words);
        assert_eq!(out.status.code(), Some(code), "{words}: {}", out.stderr);
        assert!(out.stderr.contains(message), "{words}: {}", out.stderr);
        assert_eq!(mounts(&s), Vec::<String>::new(), "{words}");
    }
}

#[test]
fn sloppy_and_fake_mounts() {
    let s = scratch();
    let out = helper(&s, "src mnt -f -o lowerdir=lower0");
    assert!(out.success() && mounts(&s).is_empty(), "{}", out.stderr);
    let out = helper(&s, "src mnt -sv -o lowerdir=lower0,nonsense=1");
    assert!(out.success() && out.stderr.contains("nonsense"), "{}", out.stderr);
    succeeds(&s, "umount mnt");
}

/// Without a helper of ours in /sbin, mount(8) calls mount.fuse(8), which calls `lamel` as a command.
#[test]
fn mount_fuse_finds_lamel_by_its_name() {
    let s = scratch();
    drop(named(&s, "lamel"));
    let base = s.path().display();
    let options = format!("lowerdir={base}/lower0,upperdir={base}/upper,workdir={base}/work");
    let mut command = program(&s, Path::new("mount.fuse3"));
    command.args(["overlay", "mnt", "-t", "lamel", "-o", &options]);
    command.env("PATH", format!("{base}/bin:{}", std::env::var("PATH").unwrap()));
    let out = run(command);
    assert!(out.success(), "{}", out.stderr);
    assert_eq!(fs::read_to_string(s.join("mnt/file")).unwrap(), "lower\n");
    succeeds(&s, "umount mnt");
}
