use super::*;

fn overlay(text: &str) -> Result<Options, OptionError> {
    let mut options = Options::new("/m");
    let warnings = options.parse(Dialect::Overlay, OsStr::new(text))?;
    assert_eq!(warnings, []);
    Ok(options)
}

fn face(text: &str) -> (Options, Vec<String>) {
    let mut options = Options::fuse_overlayfs("/m", true);
    let warnings = options.parse(Dialect::FuseOverlayfs, OsStr::new(text)).unwrap();
    (options, warnings.iter().map(Warning::to_string).collect())
}

fn refusal(text: &str) -> String {
    overlay(text).unwrap_err().to_string()
}

fn list(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

#[test]
fn layers_in_overlay_syntax() {
    let options = overlay(r"lowerdir=/a\:b:/c\,d:/e\\,upperdir=/u\,v,workdir=w").unwrap();
    assert_eq!(options.lowers, list(&["/a:b", "/c,d", r"/e\"]));
    assert_eq!(options.upper, Some("/u,v".into()));
    assert_eq!(options.work, Some("w".into()));
    let options = overlay("lowerdir+=/a:b,lowerdir+=/c").unwrap();
    assert_eq!(options.lowers, list(&["/a:b", "/c"]));
    assert!(matches!(overlay("lowerdir=/a::/b"), Err(OptionError::EmptyPath { .. })));
    assert!(matches!(overlay("lowerdir="), Err(OptionError::EmptyPath { .. })));
    assert!(matches!(overlay("lowerdir"), Err(OptionError::NeedsValue { .. })));
}

#[test]
fn later_options_win() {
    let mut options = Options::new("/m");
    options.parse(Dialect::Overlay, OsStr::new("lowerdir=/a,ro,metacopy=off")).unwrap();
    options.parse(Dialect::Overlay, OsStr::new("lowerdir=/b,rw")).unwrap();
    assert_eq!(options.lowers, list(&["/b"]));
    assert!(!options.flags.read_only);
    assert!(!options.metacopy);
}

#[test]
fn defaults_are_on_for_lamel_and_off_for_the_face() {
    let lamel = overlay("").unwrap();
    assert_eq!((lamel.redirect_dir, lamel.metacopy), (RedirectDir::On, true));
    assert_eq!(lamel.format, UpperFormat::Overlay);
    let (face, _) = face("");
    assert_eq!((face.redirect_dir, face.metacopy), (RedirectDir::Off, false));
    assert_eq!(face.format, UpperFormat::FuseOverlayfs);
    assert!(face.flags.allow_other && face.flags.default_permissions && face.flags.suid && !face.flags.dev);
    let user = Options::fuse_overlayfs("/m", false);
    assert!(!user.flags.allow_other && user.flags.default_permissions && !user.flags.suid);
}

#[test]
fn overlay_switches() {
    for (text, want) in [
        ("on", RedirectDir::On),
        ("follow", RedirectDir::Follow),
        ("nofollow", RedirectDir::Off),
        ("off", RedirectDir::Off),
    ] {
        assert_eq!(overlay(&format!("redirect_dir={text}")).unwrap().redirect_dir, want);
    }
    assert_eq!(refusal("redirect_dir=maybe"), r#"option "redirect_dir": "maybe" is not on, follow, nofollow or off"#);
    let options = overlay("metacopy=off,index=off,xino=auto,userxattr,volatile,fsync=0").unwrap();
    assert!(!options.metacopy && !options.index && options.volatile && !options.fsync);
    assert_eq!(options.namespace, MarkNamespace::User);
    assert!(overlay("nfs_export=off,uuid=null,verity=off").is_ok());
    let reason = refusal("nfs_export=on");
    assert!(reason.contains("nfs_export") && reason.contains("FUSE file handles"), "{reason}");
    assert!(overlay("verity=require").is_err());
    assert!(overlay("volatile=1").is_err());
}

#[test]
fn mount_flags() {
    let flags =
        overlay("ro,nodev,nosuid,noexec,relatime,nodiratime,sync,dirsync,allow_root,nosymfollow").unwrap().flags;
    assert!(flags.read_only && !flags.dev && !flags.suid && !flags.exec && flags.nodiratime && flags.nosymfollow);
    assert!(flags.sync && flags.dirsync && flags.allow_root && !flags.allow_other);
    assert_eq!(flags.atime, Atime::RelAtime);
    assert_eq!(overlay("strictatime").unwrap().flags.atime, Atime::StrictAtime);
    assert!(overlay("defaults,_netdev,nofail,x-systemd.automount,user=me,comment=x").is_ok());
    assert!(overlay("remount,ro").is_err());
    let flags = overlay(r#"fsname=src,subtype=t,context="u:r:t:s0:c1,c2",fscontext=a:b"#).unwrap().flags;
    assert_eq!((flags.fsname.as_str(), flags.subtype.as_str()), ("src", "t"));
    assert_eq!(flags.context, [r#"context="u:r:t:s0:c1,c2""#, "fscontext=a:b"]);
    assert!(overlay("fsname=").is_err());
}

#[test]
fn unknown_options_name_the_nearest() {
    assert_eq!(refusal("lowrdir=/a"), r#"unknown option "lowrdir"; did you mean "lowerdir"?"#);
    assert_eq!(refusal("redirectdir=on"), r#"unknown option "redirectdir"; did you mean "redirect_dir"?"#);
    assert_eq!(refusal("xyzzyplugh=1"), r#"unknown option "xyzzyplugh""#);
    let mut options = Options::new("/m");
    let warnings = options.parse(Dialect::Sloppy, OsStr::new("foo,ro")).unwrap();
    assert_eq!(warnings, [Warning::Ignored("foo".to_owned())]);
    assert!(options.flags.read_only);
}

#[test]
fn every_name_that_may_be_suggested_is_known() {
    for name in union::KNOWN.iter().chain(flags::KNOWN) {
        for text in [(*name).to_owned(), format!("{name}=1")] {
            assert!(!matches!(overlay(&text), Err(OptionError::Unknown { .. })) || text.starts_with("sync="), "{text}");
        }
    }
}

#[test]
fn ownership() {
    let options = overlay("uidmapping=:0:1000:1:1:100000:65536,gidmapping=0:5:1,xattr_permissions=2").unwrap();
    assert_eq!(options.ownership.uid_map.len(), 2);
    assert_eq!(options.ownership.gid_map, [IdRange { container: 0, host: 5, len: 1 }]);
    assert_eq!(options.ownership.xattr_permissions, XattrPermissions::User);
    let squash = overlay("squash_to_root").unwrap().ownership;
    assert_eq!((squash.squash_uid, squash.squash_gid), (Some(0), Some(0)));
    let squash = overlay("squash_to_uid=7").unwrap().ownership;
    assert_eq!((squash.squash_uid, squash.squash_gid), (Some(7), None));
    let overflow = overlay("overflow_uid=0,overflow_gid=7").unwrap().ownership;
    assert_eq!((overflow.overflow_uid, overflow.overflow_gid), (Some(0), Some(7)));
    assert!(overlay("overflow_uid=-1").is_err());
    assert!(overlay("squash_to_uid=4294967295").is_err());
    assert!(overlay("squash_to_uid=-1").is_err());
    assert!(overlay("xattr_permissions=3").is_err());
}

#[test]
fn numbers() {
    let options = overlay("timeout=1.5,threads=3,spin=0,writeback=0,io=handles,noacl,static_nlink,ino32_t").unwrap();
    assert_eq!(options.timeout, Some(Duration::from_millis(1500)));
    assert_eq!(options.threads, Some(3));
    assert_eq!((options.writeback, options.spin, options.io), (Some(false), Some(false), Io::Handles));
    assert!(!options.acl && options.static_nlink && options.ino32);
    assert_eq!(overlay("timeout=1000000000").unwrap().timeout, None);
    for bad in ["timeout=-1", "timeout=nan", "timeout=x", "threads=0", "threads=9999", "writeback=2", "io=fast"] {
        assert!(matches!(overlay(bad), Err(OptionError::BadValue { .. })), "{bad}");
    }
}

#[test]
fn the_face_takes_what_podman_writes() {
    let (options, warnings) = face(
        "lowerdir=/g/l/AAA:/g/l/BBB,upperdir=/g/1/diff,workdir=/g/1/work,,volatile,\
         context=\"system_u:object_r:container_file_t:s0:c1,c2\",uidmapping=:0:1:1000,gidmapping=:0:1:1000,",
    );
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(options.lowers, list(&["/g/l/AAA", "/g/l/BBB"]));
    assert!(options.volatile);
    assert_eq!(options.ownership.uid_map, [IdRange { container: 0, host: 1, len: 1000 }]);
    assert_eq!(options.flags.context, ["context=\"system_u:object_r:container_file_t:s0:c1,c2\""]);
}

#[test]
fn the_face_passes_over_what_it_does_not_know() {
    let (options, warnings) = face("foo=1,bar,splice_move,kernel_cache,max_write=65536,fast_ino=1,lazytime,dev");
    assert_eq!(warnings, ["unknown argument ignored: foo=1", "unknown argument ignored: bar"]);
    assert!(options.flags.dev);
    let (options, _) = face("threaded=0,noxattrs=1,sync=0,redirect_dir=on,metacopy=on,debug,plugins=");
    assert_eq!((options.threads, options.xattr, options.fsync), (Some(1), false, false));
    assert_eq!((options.redirect_dir, options.metacopy), (RedirectDir::On, true));
    let plugin = Options::fuse_overlayfs("/m", true).parse(Dialect::FuseOverlayfs, OsStr::new("lowerdir=//p/d/x"));
    assert!(matches!(plugin, Err(OptionError::Refused { .. })));
}

#[test]
fn paths_become_absolute() {
    let mut options = overlay("lowerdir=a:/b,upperdir=u,workdir=../w").unwrap();
    options.mountpoint = "m".into();
    options.resolve(Path::new("/cwd"));
    assert_eq!(options.lowers, list(&["/cwd/a", "/b"]));
    assert_eq!(options.upper, Some("/cwd/u".into()));
    assert_eq!(options.work, Some("/cwd/../w".into()));
    assert_eq!(options.mountpoint, PathBuf::from("/cwd/m"));
}

proptest::proptest! {
    #[test]
    fn no_option_string_makes_a_dialect_panic(text in "[a-z_]{0,12}=?[0-9:,\"\\\\/a-z]{0,30}(,[a-z_]{0,12}=[0-9:]{0,12}){0,4}") {
        for dialect in [Dialect::Overlay, Dialect::Sloppy, Dialect::FuseOverlayfs] {
            Options::new("/m").parse(dialect, OsStr::new(&text)).ok();
        }
    }
}
