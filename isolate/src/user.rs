//! `USER[:GROUP]` by name or number, from the container's own passwd and group.
//!
//! Both files are the image's and may be anything: a link to the host's, a
//! device, gigabytes. They are opened inside the root, must be regular files,
//! and are read up to a limit. No code of the host's name service sees them.
//! Of a container that runs, a process that entered it opens them (`exec`).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::{Called as _, Error, Fault};
use crate::rootfs::{self, Links};

/// Bytes that are read of either file.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Longest line; a longer one is no entry.
const MAX_LINE: usize = 64 * 1024;
/// The most supplementary groups that the kernel takes.
const MAX_GROUPS: usize = 65536;
/// The most users whose names are kept.
const MAX_NAMES: usize = 65536;
/// The highest id, as in Docker. Above it ids turn negative in programs, and the last one means "unchanged".
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// Who a process of the container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups, among them `gid`: a file that denies the group something denies it this process.
    pub groups: Vec<u32>,
    /// The user's home, if passwd has the user.
    pub home: Option<String>,
}

/// A line of passwd.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Where passwd and group are.
#[derive(Debug)]
pub(crate) enum Accounts {
    /// In a root directory.
    Root(OwnedFd),
    /// Open; what could not be opened, with the reason.
    Open(BTreeMap<&'static str, Result<OwnedFd, String>>),
}

/// The files, as [`Accounts`] names them, and where they are below the root.
pub(crate) const FILES: [(&str, &CStr); 2] = [("passwd", c"etc/passwd"), ("group", c"etc/group")];

/// Finds who `text` (`USER`, `USER:GROUP`; empty for root) and the groups `more` are in the root directory `root`.
///
/// A word of digits is a number, whatever name an image gives to it.
///
/// # Errors
/// A name is unknown, a number out of range, or a file cannot be trusted.
pub fn resolve(root: &Path, text: &str, more: &[String]) -> Result<Identity, Error> {
    resolve_in(&Accounts::Root(rootfs::open_root(root)?), text, more)
}

/// The same in files wherever they are.
pub(crate) fn resolve_in(accounts: &Accounts, text: &str, more: &[String]) -> Result<Identity, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = parse_id(user)?;
    let account = find_account(accounts, |account| match number {
        Some(number) => account.uid == number,
        None => account.name == user,
    })?;
    let uid = number.or(account.as_ref().map(|account| account.uid)).ok_or_else(|| unknown("user", user, "passwd"))?;
    let mut gid = account.as_ref().map_or(0, |account| account.gid);
    let mut groups = Vec::new();
    let explicit = group.filter(|group| !group.is_empty());
    if let Some(group) = explicit {
        gid = find_group(accounts, group)?;
    } else if let Some(account) = &account {
        each_line(accounts, "group", |fields| {
            let is_member = |members: &&str| members.split(',').any(|member| member == account.name);
            if let (Some(gid), Some(_)) = (id_at(fields, 2), fields.get(3).filter(|members| is_member(members))) {
                groups.push(gid);
            }
            groups.len() >= MAX_GROUPS
        })?;
    }
    for group in more {
        groups.push(find_group(accounts, group)?);
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups, home: account.map(|account| account.home).filter(|home| !home.is_empty()) })
}

fn unknown(what: &str, name: &str, file: &str) -> Error {
    Error::RootFile { path: Path::new("/etc").join(file), why: format!("no {what} {name:?}") }
}

/// A word that begins with a digit must be a number within the range.
fn parse_id(word: &str) -> Result<Option<u32>, Error> {
    let numeric = word.strip_prefix(['+', '-']).unwrap_or(word);
    if !numeric.starts_with(|c: char| c.is_ascii_digit()) || !numeric.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(id) if id <= MAX_ID && word == numeric => Ok(Some(id)),
        _ => Err(Error::invalid("process.user", format!("id {word} is not within 0 and {MAX_ID}"))),
    }
}

fn id_at(fields: &[&str], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok().filter(|id| *id <= MAX_ID)
}

fn find_account(accounts: &Accounts, wanted: impl Fn(&Account) -> bool) -> Result<Option<Account>, Error> {
    let mut found = None;
    each_line(accounts, "passwd", |fields| {
        let (Some(name), Some(uid), Some(gid)) = (fields.first(), id_at(fields, 2), id_at(fields, 3)) else {
            return false;
        };
        let home = fields.get(5).copied().unwrap_or_default().to_owned();
        let account = Account { name: (*name).to_owned(), uid, gid, home };
        if wanted(&account) {
            found = Some(account);
        }
        found.is_some()
    })?;
    Ok(found)
}

fn find_group(accounts: &Accounts, group: &str) -> Result<u32, Error> {
    if let Some(number) = parse_id(group)? {
        return Ok(number);
    }
    let mut found = None;
    each_line(accounts, "group", |fields| {
        if fields.first() == Some(&group) {
            found = id_at(fields, 2);
        }
        found.is_some()
    })?;
    found.ok_or_else(|| unknown("group", group, "group"))
}

/// The names of the users in passwd, by number; of two with one number, the first.
pub(crate) fn names(accounts: &Accounts) -> Result<BTreeMap<u32, String>, Error> {
    let mut names = BTreeMap::new();
    each_line(accounts, "passwd", |fields| {
        if let (Some(name), Some(uid)) = (fields.first(), id_at(fields, 2)) {
            names.entry(uid).or_insert_with(|| (*name).to_owned());
        }
        names.len() >= MAX_NAMES
    })?;
    Ok(names)
}

/// Opens one of the files; none if it is not there. Nothing is allocated, for a process that is about to exec.
pub(crate) fn open(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Fault> {
    // Not even a look at a FIFO or a device may wait or do anything: the type is seen before it is opened.
    let place = match rootfs::open(root, path, OFlags::PATH, Links::Inside) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        found => found.called("openat2")?,
    };
    is_file(&place)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rootfs::open(root, path, flags, Links::Inside).called("openat2")?;
    is_file(&file)?;
    Ok(Some(file))
}

fn is_file(fd: &OwnedFd) -> Result<(), Fault> {
    let stat = rustix::fs::fstat(fd).called("fstat")?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        Ok(())
    } else {
        Err(Fault::refused("is no regular file"))
    }
}

fn find(accounts: &Accounts, name: &str) -> Result<Option<OwnedFd>, String> {
    match accounts {
        Accounts::Root(root) => {
            let path = FILES.iter().find_map(|(file, path)| (*file == name).then_some(*path)).unwrap_or_default();
            open(root.as_fd(), path).map_err(|fault| fault.to_string())
        }
        Accounts::Open(files) => match files.get(name) {
            Some(Ok(file)) => {
                rustix::fs::seek(file, SeekFrom::Start(0)).map_err(|errno| errno.to_string())?;
                file.try_clone().map(Some).map_err(|error| error.to_string())
            }
            Some(Err(why)) => Err(why.clone()),
            None => Ok(None),
        },
    }
}

/// Shows each line's fields until `done`; a file that is not there has none.
fn each_line(accounts: &Accounts, name: &str, mut done: impl FnMut(&[&str]) -> bool) -> Result<(), Error> {
    let fault = |why: String| Error::RootFile { path: Path::new("/etc").join(name), why };
    let Some(file) = find(accounts, name).map_err(fault)? else { return Ok(()) };
    let mut reader = BufReader::new(File::from(file).take(MAX_FILE));
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = reader.read_until(b'\n', &mut line).map_err(|error| fault(error.to_string()))?;
        if len == 0 {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let text = text.trim_end();
        if text.len() > MAX_LINE || text.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = text.split(':').collect();
        if done(&fields) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(passwd: &str, group: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), group).unwrap();
        root
    }

    fn who(root: &tempfile::TempDir, text: &str) -> Result<Identity, Error> {
        resolve(&root.path().canonicalize().unwrap(), text, &[])
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\n1000:x:0:0::/root:/bin/sh\n\
        4294967295:x:0:0:::\nhuge:x:4294967295:0:::\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,me\n100:x:0:\n";

    #[test]
    fn names_and_numbers() {
        let root = root(PASSWD, GROUP);
        let me = who(&root, "me").unwrap();
        assert_eq!(
            (me.uid, me.gid, me.groups.as_slice(), me.home.as_deref()),
            (1000, 100, &[10, 100][..], Some("/home/me"))
        );
        // A number is never a name.
        assert_eq!(who(&root, "1000").unwrap().uid, 1000);
        assert_eq!(who(&root, "me:100").unwrap().groups, [100]);
        let unlisted = who(&root, "77:88").unwrap();
        assert_eq!((unlisted.uid, unlisted.gid, unlisted.groups.as_slice(), unlisted.home), (77, 88, &[88][..], None));
        assert_eq!(who(&root, "77").unwrap().gid, 0);
        assert_eq!(who(&root, "").unwrap().uid, 0);
        assert_eq!(who(&root, ":users").unwrap().gid, 100);
        let more = resolve(&root.path().canonicalize().unwrap(), "me", &["users".into(), "5".into()]).unwrap();
        assert_eq!(more.groups, [5, 10, 100]);
    }

    #[test]
    fn nothing_doubtful_becomes_root() {
        let root = root(PASSWD, GROUP);
        for text in [
            "4294967295",
            "4294967296",
            "2147483648",
            "2147483648:0",
            "0:4294967296",
            "-1",
            "+0",
            "1000abc",
            "nobody",
            "me:none",
            "huge",
            "0x0",
        ] {
            assert!(who(&root, text).is_err(), "{text}: {:?}", who(&root, text));
        }
    }

    #[test]
    fn files_that_are_no_files_are_refused_and_endless_ones_end() {
        let root = root(PASSWD, GROUP);
        let passwd = root.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &passwd).unwrap();
        assert!(who(&root, "root").is_err());
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, 0o644.into(), 0).unwrap();
        assert!(who(&root, "root").is_err());
        std::fs::remove_file(&passwd).unwrap();
        let file = File::create(&passwd).unwrap();
        file.set_len(10 << 30).unwrap();
        assert!(who(&root, "root").is_err());
        assert_eq!(who(&root, "0").unwrap().uid, 0);
    }
}
