//! `lamel find`

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result, bail};
use lamel_image::view::{Object, Step, matches};

use super::inside::{InsideArgs, for_each, letter, shown};

/// Find objects of an image, without a mount
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tests, all of which must hold; `!` before one turns it round:
  -name PATTERN  -iname PATTERN  -path PATTERN    * ? […]; * stands for slashes too
  -type f|d|l|c|b|p|s[,…]  -size [+-]N[cwbkMG]  -uid N  -gid N  -perm [-/]MODE
and besides:
  -maxdepth N  -mindepth N  -print0

Example:
  lamel find debian:12:/usr -perm /6000 -type f")]
pub(crate) struct Args {
    #[command(flatten)]
    inside: InsideArgs,
    /// Images and paths in them, then tests
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "REF[:PATH]")]
    words: Vec<OsString>,
}

/// Finds.
pub(crate) fn run(args: &Args) -> Result<()> {
    let first = args.words.iter().position(|word| word.as_bytes().starts_with(b"-") || word == "!");
    let (places, tests) = args.words.split_at(first.unwrap_or(args.words.len()));
    if places.is_empty() {
        bail!("name an image before the tests: lamel find REF[:PATH] -name …");
    }
    let query = Query::parse(tests)?;
    let terminal = io::stdout().is_terminal();
    let mut out = BufWriter::new(io::stdout().lock());
    for_each(&args.inside, places, |view, inside| {
        let from = view.resolve(&inside.path, false)?;
        view.walk::<anyhow::Error>(from, &mut |object, depth| {
            if depth >= query.least && query.holds(object) {
                let (line, end) =
                    if query.zero { (object.path.clone(), b"\0") } else { (shown(&object.path, terminal), b"\n") };
                out.write_all(&line).and_then(|()| out.write_all(end)).context("standard output")?;
            }
            Ok(if depth < query.most { Step::Into } else { Step::Over })
        })?;
        out.flush().context("standard output")
    })
}

#[derive(Debug, PartialEq)]
enum Test {
    Name(Vec<u8>),
    NameAnyCase(Vec<u8>),
    Path(Vec<u8>),
    Type(Vec<char>),
    Size(Bound, u64),
    Uid(Bound),
    Gid(Bound),
    Perm(Perm, u32),
}

#[derive(Debug, PartialEq)]
enum Bound {
    Exactly(u64),
    More(u64),
    Less(u64),
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| digits.parse().ok();
        match text.split_at_checked(1)? {
            ("+", digits) => number(digits).map(Self::More),
            ("-", digits) => number(digits).map(Self::Less),
            _ => number(text).map(Self::Exactly),
        }
    }

    fn holds(&self, value: u64) -> bool {
        match self {
            Self::Exactly(wanted) => value == *wanted,
            Self::More(wanted) => value > *wanted,
            Self::Less(wanted) => value < *wanted,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Perm {
    Exactly,
    All,
    Any,
}

#[derive(Debug)]
struct Query {
    /// Each with whether it must not hold.
    tests: Vec<(bool, Test)>,
    least: usize,
    most: usize,
    zero: bool,
}

impl Query {
    fn parse(words: &[OsString]) -> Result<Self> {
        let mut query = Self { tests: Vec::new(), least: 0, most: usize::MAX, zero: false };
        let mut words = words.iter();
        let mut not = false;
        while let Some(word) = words.next() {
            let name = word.to_str().with_context(|| format!("{} is no test", word.display()))?;
            if matches!(name, "!" | "-not") {
                not = !not;
                continue;
            }
            if matches!(name, "-print0" | "-print") {
                query.zero |= name == "-print0";
                continue;
            }
            let known =
                ["-name", "-iname", "-path", "-type", "-size", "-uid", "-gid", "-perm", "-maxdepth", "-mindepth"];
            if !known.contains(&name) {
                bail!("{name} is not known; see lamel find --help");
            }
            let value = words.next().with_context(|| format!("{name} needs a value"))?;
            let wrong = || format!("{name} {} is not understood", value.display());
            if let "-maxdepth" | "-mindepth" = name {
                let depth = value.to_str().and_then(|text| text.parse().ok()).with_context(wrong)?;
                *(if name == "-maxdepth" { &mut query.most } else { &mut query.least }) = depth;
                continue;
            }
            query.tests.push((not, Test::parse(name, value).with_context(wrong)?));
            not = false;
        }
        if not { bail!("nothing comes after `!`") } else { Ok(query) }
    }

    fn holds(&self, object: &Object) -> bool {
        self.tests.iter().all(|(not, test)| test.holds(object) != *not)
    }
}

impl Test {
    fn parse(name: &str, value: &OsStr) -> Option<Self> {
        let bytes = value.as_bytes().to_vec();
        let text = value.to_str();
        Some(match name {
            "-name" => Self::Name(bytes),
            "-iname" => Self::NameAnyCase(bytes.to_ascii_lowercase()),
            "-path" => Self::Path(bytes),
            "-type" => {
                let letters = text?.split(',').map(|letter| Some(letter).filter(|l| l.len() == 1)?.chars().next());
                let letters: Vec<char> = letters.collect::<Option<_>>()?;
                return letters.iter().all(|letter| "fdlcbps".contains(*letter)).then_some(Self::Type(letters));
            }
            "-size" => {
                let text = text?;
                let units = [('c', 1), ('w', 2), ('b', 512), ('k', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
                let unit = units.into_iter().find(|(letter, _)| text.ends_with(*letter));
                let (number, unit) = unit.map_or((text, 512), |(letter, unit)| (text.trim_end_matches(letter), unit));
                Self::Size(Bound::parse(number)?, unit)
            }
            "-uid" => Self::Uid(Bound::parse(text?)?),
            "-gid" => Self::Gid(Bound::parse(text?)?),
            "-perm" => {
                let (how, digits) = match text?.split_at_checked(1)? {
                    ("-", digits) => (Perm::All, digits),
                    ("/", digits) => (Perm::Any, digits),
                    _ => (Perm::Exactly, text?),
                };
                Self::Perm(how, u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)?)
            }
            _ => return None,
        })
    }

    fn holds(&self, object: &Object) -> bool {
        let attr = &object.attr;
        // As find(1) calls the root.
        let name = if object.path == b"/" { b"/" } else { object.name() };
        match self {
            Self::Name(pattern) => matches(pattern, name),
            Self::NameAnyCase(pattern) => matches(pattern, &name.to_ascii_lowercase()),
            Self::Path(pattern) => matches(pattern, &object.path),
            Self::Type(letters) => letters.contains(&Some(letter(object)).filter(|l| *l != '-').unwrap_or('f')),
            Self::Size(bound, unit) => bound.holds(attr.size.div_ceil(*unit)),
            Self::Uid(bound) => bound.holds(attr.uid.into()),
            Self::Gid(bound) => bound.holds(attr.gid.into()),
            Self::Perm(how, wanted) => {
                let mode = attr.mode & 0o7777;
                match how {
                    Perm::Exactly => mode == *wanted,
                    Perm::All => mode & wanted == *wanted,
                    Perm::Any => *wanted == 0 || mode & wanted != 0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query> {
        Query::parse(&text.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn tests_are_those_of_find() {
        let query = parse("-maxdepth 3 ! -name *.so -size +2k -perm /6000 -type f,l -print0").unwrap();
        assert!(query.zero && query.most == 3 && query.least == 0);
        assert_eq!(
            query.tests,
            [
                (true, Test::Name(b"*.so".to_vec())),
                (false, Test::Size(Bound::More(2), 1024)),
                (false, Test::Perm(Perm::Any, 0o6000)),
                (false, Test::Type(vec!['f', 'l'])),
            ]
        );
        for wrong in ["-size", "-size x", "-size +", "-type x", "-type", "-perm 9", "-delete", "! ", "-maxdepth -1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
