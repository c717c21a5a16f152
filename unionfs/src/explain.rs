//! Where an object comes from, or why there is none: the answers for `lamel explain`.
//!
//! A line a fact, its fields between tabs: a key, then the layer's position (the upper being 0), then what there is to say.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use crate::backing::Backing;
use crate::error::{Error, Refusal, Result};
use crate::inode::{Body, Inode, UpperDir, UpperFile};
use crate::layer::Lookup;
use crate::sys::xattr::Target;
use crate::union::UnionFs;
use crate::whiteout::Marks;

/// The facts found so far.
#[derive(Default)]
struct Facts(Vec<u8>);

impl Facts {
    fn add(&mut self, fields: &[&OsStr]) {
        for (position, field) in fields.iter().enumerate() {
            if position > 0 {
                self.0.push(b'\t');
            }
            // A name may hold anything; the separators must stay separators.
            self.0.extend(field.as_bytes().iter().map(|b| if matches!(b, b'\t' | b'\n') { b'?' } else { *b }));
        }
        self.0.push(b'\n');
    }

    fn add_number(&mut self, key: &str, number: impl std::fmt::Display) {
        self.add(&[key.as_ref(), number.to_string().as_ref()]);
    }

    fn add_mark(&mut self, layer: usize, mark: &str, value: Option<&OsStr>) {
        let layer = layer.to_string();
        let mut fields: Vec<&OsStr> = vec!["mark".as_ref(), layer.as_ref(), mark.as_ref()];
        fields.extend(value);
        self.add(&fields);
    }

    fn add_fault(&mut self, error: &Error) {
        self.add(&["fault".as_ref(), error.to_string().as_ref()]);
    }

    /// What decides beside the object itself.
    fn add_marks(&mut self, layer: usize, marks: &Marks) {
        if marks.opaque {
            self.add_mark(layer, "opaque", None);
        }
        if marks.metacopy {
            self.add_mark(layer, "metacopy", None);
        }
        if let Some(redirect) = &marks.redirect {
            self.add_mark(layer, "redirect", Some(redirect));
        }
        if let Some(ino) = marks.ino {
            self.add_mark(layer, "copied-up", Some(ino.to_string().as_ref()));
        }
    }
}

impl UnionFs {
    /// Where an object comes from.
    pub(crate) fn explain(&self, inode: &Arc<Inode>) -> Result<Vec<u8>> {
        let mut facts = Facts::default();
        let attr = self.disk_attr(inode)?;
        facts.add_number("ino", inode.ino);
        facts.add_number("mode", format_args!("{:o}", attr.mode));
        facts.add_number("nlink", attr.nlink);
        let used = self.explain_places(inode, &mut facts)?;
        if inode.in_upper() {
            facts.add_marks(0, &self.upper_marks(inode)?);
        }
        if let Some(link) = inode.link() {
            self.explain_below(&link.parent, &link.name, &used, &mut facts)?;
        }
        Ok(facts.0)
    }

    /// Why there is nothing under a name, or an error: `NotFound` if no layer ever had it.
    pub(crate) fn explain_absence(&self, parent: &Arc<Inode>, name: &OsStr) -> Result<Vec<u8>> {
        let mut facts = Facts::default();
        let found = self.find(parent, name);
        if let Err(error) = &found {
            facts.add_fault(error);
        } else if matches!(found, Ok(None)) {
            if let Some(dir) = self.upper_dir_opt(parent)?
                && matches!(self.upper()?.lookup(&dir, name, false)?, Lookup::Whiteout)
            {
                facts.add_mark(0, "whiteout", Some(&path_of(parent, name)));
            }
            self.explain_below(parent, name, &[], &mut facts)?;
        }
        if facts.0.is_empty() { Err(Refusal::NotFound.into()) } else { Ok(facts.0) }
    }

    /// The layers that give an object; returns those of the lower ones, with the paths that they have it at.
    fn explain_places(&self, inode: &Arc<Inode>, facts: &mut Facts) -> Result<Vec<(u16, OsString)>> {
        let (mut merged, mut attributes, mut data) = (Vec::new(), None, None);
        let place = match &inode.state.read().body {
            Body::Dir(dir) => {
                merged.extend(dir.lowers.iter().cloned());
                match dir.upper {
                    UpperDir::Absent => None,
                    UpperDir::Named => Some("named"),
                    UpperDir::Removed(_) => Some("removed"),
                }
            }
            Body::File(file) => {
                attributes = file.lower().cloned().filter(|_| file.upper().is_none());
                data = Some(file.data_below().cloned());
                file.upper().map(|upper| match upper {
                    UpperFile::Named => "named",
                    UpperFile::Indexed(_) => "indexed",
                    UpperFile::Nameless(_) => "unlinked",
                })
            }
        };
        let path = path_of_inode(inode);
        let mut used = Vec::new();
        let mut below = |facts: &mut Facts, key: &str, layer: u16, path: OsString| {
            let position = (layer + 1).to_string();
            facts.add(&[key.as_ref(), position.as_ref(), self.layer(layer).source().as_os_str(), &path]);
            used.push((layer, path));
        };
        if let (Some(place), Some(upper)) = (place, &self.upper) {
            facts.add(&["attributes".as_ref(), "0".as_ref(), upper.path.as_os_str(), &path, place.as_ref()]);
        }
        for lower in merged {
            below(facts, "merges", lower.layer, lower.dir.path());
            let itself = self.layer(lower.layer).lookup(&lower.dir, OsStr::new("."), false)?;
            if let Lookup::Found { entry, .. } = itself {
                facts.add_marks(usize::from(lower.layer) + 1, &entry.marks);
            }
        }
        if let Some(lower) = attributes {
            below(facts, "attributes", lower.layer, lower.dir.path_of(&lower.name));
        }
        match (data, &self.upper) {
            (Some(Some(lower)), _) => below(facts, "data", lower.layer, lower.dir.path_of(&lower.name)),
            (Some(None), Some(upper)) => facts.add(&["data".as_ref(), "0".as_ref(), upper.path.as_os_str(), &path]),
            _ => {}
        }
        Ok(used)
    }

    /// What the lower layers have under a name that is not shown, and the marks that see to it.
    fn explain_below(
        &self,
        parent: &Arc<Inode>,
        name: &OsStr,
        used: &[(u16, OsString)],
        facts: &mut Facts,
    ) -> Result<()> {
        for lower in self.lowers_of(parent)?.iter() {
            let position = usize::from(lower.layer) + 1;
            let path = lower.dir.path_of(name);
            match self.layer(lower.layer).lookup(&lower.dir, name, false) {
                Ok(Lookup::Absent) => {}
                Ok(Lookup::Whiteout) => facts.add_mark(position, "whiteout", Some(&path)),
                Ok(Lookup::Found { hides, .. }) => {
                    if !used.contains(&(lower.layer, path.clone())) {
                        let source = self.layer(lower.layer).source().as_os_str();
                        facts.add(&["hidden".as_ref(), position.to_string().as_ref(), source, &path]);
                    }
                    if hides {
                        facts.add_mark(position, "whiteout", Some(&path));
                    }
                }
                Err(error) => facts.add_fault(&error),
            }
        }
        Ok(())
    }

    /// The marks of an object of the upper.
    fn upper_marks(&self, inode: &Arc<Inode>) -> Result<Marks> {
        let upper = self.upper()?;
        self.with_upper(inode, |backing| match (backing, backing.target()?) {
            (Backing::Upper { dir, .. }, Target::At(_, name)) => match upper.lookup(dir, name, false)? {
                Lookup::Found { entry, .. } => Ok(entry.marks),
                Lookup::Absent | Lookup::Whiteout => Ok(Marks::default()),
            },
            (_, target) => upper.markers.read(target, None),
        })
    }
}

/// The path of an object in the union, which is its path in the upper.
fn path_of_inode(inode: &Arc<Inode>) -> OsString {
    match inode.link() {
        Some(link) => path_of(&link.parent, &link.name),
        None => "/".into(),
    }
}

fn path_of(parent: &Arc<Inode>, name: &OsStr) -> OsString {
    let mut names = vec![name.as_bytes().to_vec()];
    let mut next = parent.link();
    while let Some(link) = next {
        next = link.parent.link();
        names.push(link.name.as_bytes().to_vec());
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    OsString::from_vec(path)
}
