//! `--hooks-dir`: which hooks a container gets, as podman's oci-hooks(5) has it, version 1.0.0.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use lamel_isolate::oci::{Hook, Hooks, Mount, Spec};
use regex::Regex;
use serde::Deserialize;

use super::volume;

/// Bytes of a file that are read.
const MAX_FILE: u64 = 1024 * 1024;

/// The form that is read.
const VERSION: &str = "1.0.0";

/// One file.
#[derive(Debug, Deserialize)]
struct Definition {
    version: String,
    hook: Hook,
    when: When,
    stages: Vec<String>,
}

/// Which containers a hook is for: those that all of it fits.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct When {
    always: Option<bool>,
    /// Patterns of keys and of their values, each of which an annotation has to fit.
    annotations: BTreeMap<String, String>,
    /// Patterns, one of which the program has to fit.
    commands: Vec<String>,
    has_bind_mounts: Option<bool>,
}

/// Gives a configuration the hooks of these directories that are for it, in the order of the files' names. A file of a
/// later directory takes the place of one of the same name.
pub(crate) fn add(spec: &mut Spec, directories: &[PathBuf]) -> Result<()> {
    let mut files: BTreeMap<_, PathBuf> = BTreeMap::new();
    for directory in directories {
        let entries = fs::read_dir(directory).with_context(|| format!("--hooks-dir {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| directory.display().to_string())?.path();
            if let (Some("json"), Some(name)) = (path.extension().and_then(|e| e.to_str()), path.file_name()) {
                files.insert(name.to_owned(), path);
            }
        }
    }
    for path in files.values() {
        let definition = read(path).with_context(|| format!("hook {}", path.display()))?;
        definition.add(spec).with_context(|| format!("hook {}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Definition> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        bail!("larger than {} MiB, which is no hook's definition", MAX_FILE >> 20);
    }
    let definition: Definition = serde_json::from_slice(&text)?;
    if definition.version != VERSION {
        bail!("version {:?}: {VERSION} is what is read", definition.version);
    }
    Ok(definition)
}

impl Definition {
    fn add(self, spec: &mut Spec) -> Result<()> {
        if self.stages.is_empty() {
            bail!("no stages");
        }
        if !self.when.fits(spec)? {
            return Ok(());
        }
        let mut hooks = spec.hooks().clone().unwrap_or_default();
        for stage in &self.stages {
            stage_of(&mut hooks, stage)?.get_or_insert_default().push(self.hook.clone());
        }
        spec.set_hooks(Some(hooks));
        Ok(())
    }
}

fn stage_of<'a>(hooks: &'a mut Hooks, stage: &str) -> Result<&'a mut Option<Vec<Hook>>> {
    Ok(match stage {
        "prestart" => hooks.prestart_mut(),
        "createRuntime" => hooks.create_runtime_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        "poststop" => hooks.poststop_mut(),
        _ => bail!("{stage:?} is no stage"),
    })
}

impl When {
    fn fits(&self, spec: &Spec) -> Result<bool> {
        let pattern = |text: &String| Regex::new(text).with_context(|| format!("{text:?} is no regular expression"));
        let mut conditions = Vec::new();
        conditions.extend(self.always);
        if let Some(wanted) = self.has_bind_mounts {
            // As podman has it, nobody can ask for a container without any.
            conditions.push(wanted && spec.mounts().iter().flatten().any(is_asked_for));
        }
        for (key, value) in &self.annotations {
            let (key, value) = (pattern(key)?, pattern(value)?);
            let mut annotations = spec.annotations().iter().flatten();
            conditions.push(annotations.any(|(k, v)| key.is_match(k) && value.is_match(v)));
        }
        if !self.commands.is_empty() {
            let arguments = spec.process().as_ref().and_then(|process| process.args().as_ref());
            let program = arguments.and_then(|arguments| arguments.first()).map_or("", String::as_str);
            let patterns = self.commands.iter().map(pattern).collect::<Result<Vec<_>>>()?;
            conditions.push(patterns.iter().any(|pattern| pattern.is_match(program)));
        }
        Ok(!conditions.is_empty() && conditions.iter().all(|fits| *fits))
    }
}

/// One that somebody asked for; those of the container's own directory are not meant.
fn is_asked_for(mount: &Mount) -> bool {
    volume::is_bind(mount) && mount.source().as_ref().is_some_and(|source| source.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::volume::build;

    fn spec(bind: bool) -> Spec {
        let mut spec = Spec::default();
        spec.set_annotations(Some([("io.x".to_owned(), "yes".to_owned())].into()));
        let mounts = if bind { vec![build(Path::new("/x"), "bind", Path::new("/etc"), &[]).unwrap()] } else { vec![] };
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            process.set_args(Some(vec!["/bin/nginx".to_owned()]));
        }
        spec
    }

    fn fits(when: &str, bind: bool) -> bool {
        serde_json::from_str::<When>(when).unwrap().fits(&spec(bind)).unwrap()
    }

    #[test]
    fn all_of_when_has_to_fit() {
        assert!(fits(r#"{"always": true}"#, false) && !fits(r#"{"always": false}"#, false) && !fits("{}", true));
        assert!(fits(r#"{"hasBindMounts": true}"#, true) && !fits(r#"{"hasBindMounts": true}"#, false));
        assert!(fits(r#"{"annotations": {"^io\\.x$": "^y"}}"#, false));
        assert!(!fits(r#"{"annotations": {"^io\\.x$": "^y", "a": "b"}}"#, false));
        assert!(fits(r#"{"commands": ["sh$", "nginx$"]}"#, false) && !fits(r#"{"commands": ["^nginx"]}"#, false));
        assert!(!fits(r#"{"always": true, "commands": ["sh$"]}"#, false));
        assert!(serde_json::from_str::<When>(r#"{"or": 1}"#).is_err());
        assert!(serde_json::from_str::<When>(r#"{"commands": ["("]}"#).unwrap().fits(&spec(false)).is_err());
    }

    #[test]
    fn files_are_taken_by_name_the_later_directory_s_first() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, path: &str, version: &str, stages: &str| {
            let file = place.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let text = format!(
                r#"{{"version": "{version}", "hook": {{"path": "{path}"}}, "when": {{"always": true}}, "stages": [{stages}]}}"#
            );
            fs::write(file, text).unwrap();
        };
        write("one/20.json", "/second", VERSION, r#""poststop", "createRuntime""#);
        write("one/10.json", "/masked", VERSION, r#""poststop""#);
        write("one/not-json", "/no", "x", "");
        write("two/10.json", "/first", VERSION, r#""poststop""#);
        let directories = ["one", "two"].map(|name| place.path().join(name));
        let mut spec = spec(false);
        add(&mut spec, &directories).unwrap();
        let hooks = spec.hooks().clone().unwrap();
        let paths = |hooks: &Option<Vec<Hook>>| -> Vec<PathBuf> {
            hooks.iter().flatten().map(|hook| hook.path().clone()).collect()
        };
        assert_eq!(paths(hooks.poststop()), [PathBuf::from("/first"), PathBuf::from("/second")]);
        assert_eq!(paths(hooks.create_runtime()), [PathBuf::from("/second")]);
        for (version, stages) in [("0.1.0", r#""poststop""#), (VERSION, ""), (VERSION, r#""never""#)] {
            write("bad/1.json", "/x", version, stages);
            let error = add(&mut spec, &[place.path().join("bad")]).unwrap_err();
            assert!(error.to_string().ends_with("bad/1.json"), "{error:#}");
        }
        assert!(add(&mut spec, &[place.path().join("nowhere")]).is_err());
    }

    #[test]
    fn a_file_that_is_too_large_is_told_as_that() {
        let place = tempfile::tempdir().unwrap();
        let hook = r#"{"version": "1.0.0", "hook": {"path": "/x"}, "when": {"always": true}, "stages": ["poststop"]}"#;
        let padding = " ".repeat(usize::try_from(MAX_FILE).unwrap() - hook.len());
        fs::write(place.path().join("1.json"), format!("{hook}{padding}")).unwrap();
        add(&mut spec(false), &[place.path().to_owned()]).unwrap();
        fs::write(place.path().join("1.json"), format!("{hook}{padding} ")).unwrap();
        let error = add(&mut spec(false), &[place.path().to_owned()]).unwrap_err();
        assert!(format!("{error:#}").contains("1.json: larger than 1 MiB"), "{error:#}");
    }
}
