//! `--security-opt apparmor=…` and `label=…`: what a container runs under on hosts with AppArmor or SELinux.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lamel_isolate::label::Modules;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// `unconfined` too.
    pub(super) apparmor: Option<String>,
    pub(super) user: Option<String>,
    pub(super) role: Option<String>,
    pub(super) kind: Option<String>,
    /// Of files.
    pub(super) file_kind: Option<String>,
    pub(super) level: Option<String>,
}

/// Labels of SELinux.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) process: Option<String>,
    pub(crate) mounts: Option<String>,
}

impl Wish {
    /// What comes after `label=`.
    pub(super) fn label(&mut self, text: &str) -> Result<()> {
        let (key, value) = text.split_once(':').map_or((text, ""), |(key, value)| (key, value));
        let place = match key {
            // What no container of lamel has unless it is asked for.
            "disable" if value.is_empty() => return Ok(()),
            "user" => &mut self.user,
            "role" => &mut self.role,
            "type" => &mut self.kind,
            "filetype" => &mut self.file_kind,
            "level" => &mut self.level,
            _ => bail!("label={text}: disable, user:, role:, type:, filetype: or level:"),
        };
        if value.is_empty() {
            bail!("label={text}: a value is missing");
        }
        *place = Some(value.to_owned());
        Ok(())
    }

    /// The labels: the host's own for containers, but for what was asked for.
    pub(super) fn resolve(&self) -> Result<Labels> {
        if *self == (Self { apparmor: self.apparmor.clone(), ..Self::default() }) {
            return Ok(Labels::default());
        }
        if !Modules::detect().selinux {
            bail!("label=: this host does not run SELinux; leave it out");
        }
        let config = fs::read_to_string("/etc/selinux/config").context("/etc/selinux/config")?;
        let policy = config.lines().find_map(|line| line.strip_prefix("SELINUXTYPE=")).context("no SELINUXTYPE")?;
        let path = PathBuf::from("/etc/selinux").join(policy.trim()).join("contexts/lxc_contexts");
        let contexts = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (one, other) = pair()?;
        self.over(&contexts, &format!("s0:c{one},c{other}"))
    }

    fn over(&self, contexts: &str, level: &str) -> Result<Labels> {
        let found = |key: &str| {
            let mut pairs = contexts.lines().filter_map(|line| line.split_once('='));
            let label = pairs.find(|(name, _)| name.trim() == key).map(|(_, label)| label.trim().trim_matches('"'));
            label.with_context(|| format!("lxc_contexts names no {key}"))
        };
        let level = self.level.as_deref().unwrap_or(level);
        let with = |label: &str, kind: Option<&String>, named: bool| -> Result<String> {
            let mut parts = label.splitn(4, ':');
            let mut part = || parts.next().with_context(|| format!("lxc_contexts: {label:?} is no label"));
            let (user, role, own) = (part()?, part()?, part()?);
            let wished = |wish: &Option<String>, own: &str| wish.clone().filter(|_| named).unwrap_or(own.to_owned());
            let kind = kind.map_or(own, String::as_str);
            Ok(format!("{}:{}:{kind}:{level}", wished(&self.user, user), wished(&self.role, role)))
        };
        Ok(Labels {
            process: Some(with(found("process")?, self.kind.as_ref(), true)?),
            mounts: Some(with(found("file")?, self.file_kind.as_ref(), false)?),
        })
    }
}

/// Two categories, by which containers are kept from one another's files.
fn pair() -> Result<(u16, u16)> {
    loop {
        let mut bytes = [0; 4];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).context("getrandom")?;
        let [a, b, c, d] = bytes;
        let (one, other) = (u16::from_le_bytes([a, b]) % 1024, u16::from_le_bytes([c, d]) % 1024);
        if one != other {
            return Ok((one.min(other), one.max(other)));
        }
    }
}

/// Whether `:z` and `:Z` of a volume mean something here: files are given labels.
pub(super) fn relabels() -> bool {
    Modules::detect().selinux
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: &str = "process = \"system_u:system_r:container_t:s0\"\ncontent = \"system_u:object_r:virt_var_lib_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";

    #[test]
    fn labels_are_the_host_s_but_for_what_was_asked_for() {
        let labels = |words: &[&str]| {
            let mut wish = Wish::default();
            words.iter().for_each(|word| wish.label(word).unwrap());
            let Labels { process, mounts } = wish.over(CONTEXTS, "s0:c1,c2").unwrap();
            (process.unwrap(), mounts.unwrap())
        };
        let file = |level: &str| format!("system_u:object_r:container_file_t:{level}");
        assert_eq!(labels(&["type:x_t"]), ("system_u:system_r:x_t:s0:c1,c2".to_owned(), file("s0:c1,c2")));
        let words = ["level:s0:c5,c6", "user:u", "role:r"];
        assert_eq!(labels(&words), ("u:r:container_t:s0:c5,c6".to_owned(), file("s0:c5,c6")));
        assert_eq!(labels(&["filetype:f_t"]).1, "system_u:object_r:f_t:s0:c1,c2");
        assert!(Wish { level: Some("s0".to_owned()), ..Wish::default() }.over("", "").is_err());
        for word in ["", "nested", "type", "type:", "disable:x"] {
            assert!(Wish::default().label(word).is_err(), "{word}");
        }
        let mut none = Wish::default();
        none.label("disable").unwrap();
        assert_eq!(none.resolve().unwrap(), Labels::default());
    }

    #[test]
    fn two_categories_are_different() {
        for _ in 0..100 {
            let (one, other) = pair().unwrap();
            assert!(one < other && other < 1024);
        }
    }
}
