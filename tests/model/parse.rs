//! The text form of a case, as the failure message prints it and regression tests hold it.

use std::{
    num::ParseIntError,
    str::{FromStr, SplitWhitespace},
};

use super::case::{Case, Data, Entry, FallocateHow, Meta, Op, Opaque, OpenHow, RenameHow, What, XattrHow};

/// The words of one line.
struct Words<'a>(SplitWhitespace<'a>);

type Parsed<T> = Result<T, String>;

impl Words<'_> {
    fn word(&mut self) -> Parsed<String> {
        self.0.next().map(str::to_owned).ok_or_else(|| "line too short".to_owned())
    }

    fn number<T: FromStr<Err = ParseIntError>>(&mut self) -> Parsed<T> {
        let word = self.word()?;
        word.parse().map_err(|e| format!("{word}: {e}"))
    }

    fn mode(&mut self) -> Parsed<u32> {
        let word = self.word()?;
        u32::from_str_radix(&word, 8).map_err(|e| format!("mode {word}: {e}"))
    }

    fn data(&mut self) -> Parsed<Data> {
        let word = self.word()?;
        let (tag, len) = word.split_once('x').ok_or_else(|| format!("data {word}: not TAGxLEN"))?;
        let bad = |e| format!("data {word}: {e}");
        Ok(Data { tag: tag.parse().map_err(bad)?, len: len.parse().map_err(bad)? })
    }

    /// One of `choices`, by name.
    fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Parsed<T> {
        let word = self.word()?;
        let found = choices.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| format!("unknown word {word}"))
    }

    fn meta(&mut self) -> Parsed<Meta> {
        let (mode, uid, gid) = (self.mode()?, self.number()?, self.number()?);
        let xattr = match self.0.next().and_then(|w| w.strip_prefix("xattr=")) {
            Some(value) => Some(value.parse().map_err(|e| format!("xattr {value}: {e}"))?),
            None => None,
        };
        Ok(Meta { mode, uid, gid, xattr })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Parsed<Self> {
        let mut case = Self::default();
        let mut in_ops = false;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let parsed = match line {
                "layer" => {
                    case.layers.push(Vec::new());
                    Ok(())
                }
                "ops" => {
                    in_ops = true;
                    Ok(())
                }
                _ if line.starts_with("opts ") && case.layers.is_empty() => {
                    case.opts = line[5..].to_owned();
                    Ok(())
                }
                _ if in_ops => op(line).map(|op| case.ops.push(op)),
                _ => match case.layers.last_mut() {
                    Some(layer) => entry(line).map(|e| layer.push(e)),
                    None => Err("an object before the first layer".to_owned()),
                },
            };
            parsed.map_err(|e| format!("`{line}`: {e}"))?;
        }
        Ok(case)
    }
}

fn entry(line: &str) -> Parsed<Entry> {
    let mut w = Words(line.split_whitespace());
    let (verb, path) = (w.word()?, w.word()?);
    let what = match verb.as_str() {
        "file" => {
            let data = w.data()?;
            let hole = w.word()?;
            let hole = hole.strip_prefix("hole=").and_then(|h| h.parse().ok()).ok_or("hole=N is missing")?;
            What::File { data, hole, meta: w.meta()? }
        }
        "dir" => {
            let opaque = w.choice(&[("-", Opaque::No), ("opaque", Opaque::Xattr), ("wh-opaque", Opaque::WhFile)])?;
            What::Dir { opaque, meta: w.meta()? }
        }
        "symlink" => What::Symlink { target: w.word()? },
        "fifo" => What::Fifo { meta: w.meta()? },
        "link" => What::Link { old: w.word()? },
        "whiteout" => What::Whiteout,
        "wh" => What::WhFile,
        _ => return Err("no such kind of object".to_owned()),
    };
    Ok(Entry { path, what })
}

fn op(line: &str) -> Parsed<Op> {
    let mut w = Words(line.split_whitespace());
    Ok(match w.word()?.as_str() {
        "create" => Op::Create {
            path: w.word()?,
            mode: w.mode()?,
            excl: w.choice(&[("-", false), ("excl", true)])?,
            trunc: w.choice(&[("-", false), ("trunc", true)])?,
            data: w.data()?,
        },
        "mkdir" => Op::Mkdir { path: w.word()?, mode: w.mode()? },
        "mkfifo" => Op::Mkfifo { path: w.word()?, mode: w.mode()? },
        "symlink" => Op::Symlink { path: w.word()?, target: w.word()? },
        "link" => Op::Link { old: w.word()?, new: w.word()? },
        "unlink" => Op::Unlink { path: w.word()? },
        "rmdir" => Op::Rmdir { path: w.word()? },
        "rename" => Op::Rename {
            old: w.word()?,
            new: w.word()?,
            how: w.choice(&[
                ("-", RenameHow::Plain),
                ("noreplace", RenameHow::NoReplace),
                ("exchange", RenameHow::Exchange),
            ])?,
        },
        "write" => Op::Write { path: w.word()?, at: w.number()?, data: w.data()? },
        "append" => Op::Append { path: w.word()?, data: w.data()? },
        "truncate" => Op::Truncate { path: w.word()?, len: w.number()? },
        "chmod" => Op::Chmod { path: w.word()?, mode: w.mode()? },
        "chown" => {
            let (path, uid, gid) = (w.word()?, w.number()?, w.word()?);
            let gid = if gid == "-" { None } else { Some(gid.parse().map_err(|e| format!("gid {gid}: {e}"))?) };
            Op::Chown { path, uid, gid }
        }
        "utimens" => Op::Utimens { path: w.word()?, secs: w.number()?, nanos: w.number()? },
        "setxattr" => Op::SetXattr {
            path: w.word()?,
            name: w.word()?,
            value: w.data()?,
            how: w.choice(&[("-", XattrHow::Any), ("create", XattrHow::Create), ("replace", XattrHow::Replace)])?,
        },
        "removexattr" => Op::RemoveXattr { path: w.word()?, name: w.word()? },
        "readdir" => Op::Readdir { path: w.word()? },
        "open" => Op::Open {
            slot: w.number()?,
            path: w.word()?,
            how: w.choice(&[
                ("r", OpenHow::Read),
                ("w", OpenHow::Write),
                ("rw", OpenHow::ReadWrite),
                ("append", OpenHow::Append),
                ("trunc", OpenHow::Truncate),
                ("create", OpenHow::Create),
            ])?,
        },
        "hwrite" => Op::HWrite { slot: w.number()?, at: w.number()?, data: w.data()? },
        "hread" => Op::HRead { slot: w.number()? },
        "htruncate" => Op::HTruncate { slot: w.number()?, len: w.number()? },
        "hchmod" => Op::HChmod { slot: w.number()?, mode: w.mode()? },
        "hfsync" => Op::HFsync { slot: w.number()? },
        "hfallocate" => Op::HFallocate {
            slot: w.number()?,
            how: w.choice(&[
                ("-", FallocateHow::Extend),
                ("keep", FallocateHow::KeepSize),
                ("punch", FallocateHow::PunchHole),
            ])?,
            at: w.number()?,
            len: w.number()?,
        },
        "hcopy" => {
            Op::HCopy { from: w.number()?, to: w.number()?, from_at: w.number()?, to_at: w.number()?, len: w.number()? }
        }
        "dropcaches" => Op::DropCaches,
        "kill" => Op::Kill,
        "kernel" => Op::Kernel,
        "hclose" => Op::HClose { slot: w.number()? },
        "remount" => Op::Remount,
        "pushdown" => Op::PushDown,
        _ => return Err("no such operation".to_owned()),
    })
}
