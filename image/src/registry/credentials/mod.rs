//! Who one is at a registry: given on the command line, kept in a file as
//! docker and podman keep it, or kept by a helper program.

mod file;
mod helper;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::reference::DEFAULT_REGISTRY;
use file::AuthFile;
use helper::Helper;

/// What docker calls its own registry in its files and to its helpers.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";
/// The name with which a helper says that its secret is an identity token.
const TOKEN_NAME: &str = "<token>";

/// Why credentials cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A file that is no JSON of this form. What is in it is not shown.
    #[error("{}: no file of credentials (line {line}, column {column})", .path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where it stops to be one.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// An entry that is no name and password.
    #[error("{}: the entry of {key:?} is no base64 of name:password", .path.display())]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Whose entry.
        key: String,
    },
    /// A name with a colon, which ends it in every form that is kept or sent.
    #[error("{0:?}: a user name has no colon")]
    Name(String),
    /// A helper that is not there.
    #[error("credential helper docker-credential-{0} is in no directory of $PATH: install it, or take it out of {file}", file = .1.display())]
    NoHelper(String, PathBuf),
    /// A helper that fails.
    #[error("credential helper docker-credential-{name}: {reason}")]
    Helper {
        /// Which one.
        name: String,
        /// What it or the kernel says.
        reason: String,
    },
    /// No place to keep them.
    #[error("nowhere to keep credentials: set XDG_RUNTIME_DIR or REGISTRY_AUTH_FILE, or give --authfile")]
    NoFile,
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the request that needs it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// By name and password.
    Password {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// By a token that buys other tokens.
    Identity(Secret),
    /// By the very token that the registry takes.
    Registry(Secret),
}

impl Credential {
    /// By name and password.
    ///
    /// # Errors
    /// The name has a colon.
    pub fn password(name: &str, password: &Secret) -> Result<Self, CredentialsError> {
        if name.contains(':') {
            return Err(CredentialsError::Name(name.to_owned()));
        }
        Ok(Self::Password { name: name.to_owned(), password: password.clone() })
    }

    /// Reads `NAME:PASSWORD`, or `NAME` alone, as `--creds` takes them.
    pub fn parse(text: &str) -> Self {
        let (name, password) = text.split_once(':').unwrap_or((text, ""));
        Self::Password { name: name.to_owned(), password: Secret::new(password) }
    }

    /// The user, where there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Password { name, .. } => Some(name),
            Self::Identity(_) | Self::Registry(_) => None,
        }
    }
}

/// Name and password in the form of a header and of the files.
pub(super) fn basic(name: &str, password: &Secret) -> Secret {
    Secret(STANDARD.encode(format!("{name}:{}", password.reveal())))
}

/// Where credentials are looked for.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    given: Option<Credential>,
    /// In this order; new ones go to the first.
    files: Vec<PathBuf>,
    /// Whether somebody said that the file is there.
    named: bool,
    /// Directories in which helpers are looked for.
    path: Vec<PathBuf>,
}

/// Who keeps credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// A file, readable by its owner alone.
    File(PathBuf),
    /// A helper program.
    Helper(String),
}

impl Keyring {
    /// The files that podman and docker keep credentials in; or `authfile` alone, if it is given here or by
    /// `$REGISTRY_AUTH_FILE`.
    pub fn new(authfile: Option<&Path>, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let search = variable("PATH").unwrap_or_default();
        // A relative directory is wherever somebody happens to stand.
        let path = std::env::split_paths(&search).filter(|dir| dir.is_absolute()).collect();
        let chosen = variable("REGISTRY_AUTH_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
        if let Some(file) = authfile.map(Path::to_owned).or(chosen) {
            return Self { given: None, files: vec![file], named: true, path };
        }
        let uid = rustix::process::getuid();
        let runtime = match absolute("XDG_RUNTIME_DIR") {
            Some(dir) => Some(dir.join("containers/auth.json")),
            None => uid.is_root().then(|| PathBuf::from("/run/containers/0/auth.json")),
        };
        let home = absolute("HOME");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = absolute("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
        let config = config.map(|dir| dir.join("containers/auth.json"));
        let docker = docker.map(|dir| dir.join("config.json"));
        let files = [runtime, config, docker].into_iter().flatten().collect();
        Self { given: None, files, named: false, path }
    }

    /// The same, but these credentials count for every registry.
    #[must_use]
    pub fn with_given(self, given: Option<Credential>) -> Self {
        Self { given, ..self }
    }

    /// Who one is at a registry when asking for a repository there.
    ///
    /// # Errors
    /// A file that is there but cannot be read or followed, and a helper that fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, CredentialsError> {
        if self.given.is_some() {
            return Ok(self.given.clone());
        }
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else {
                if self.named {
                    let source = std::io::ErrorKind::NotFound.into();
                    return Err(CredentialsError::File { path: path.clone(), source });
                }
                continue;
            };
            if let Some(name) = file.helper(registry) {
                let found = Helper::find(name, &self.path, path)?.get(server(registry))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            let found = file.find(registry, repository)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Keeps credentials for a registry, and says where.
    ///
    /// # Errors
    /// What keeps them fails.
    pub fn store(&self, registry: &str, name: &str, password: &Secret) -> Result<Keeper, CredentialsError> {
        let path = self.files.first().ok_or(CredentialsError::NoFile)?;
        let _guard = file::lock(path)?;
        let mut file = AuthFile::read(path)?.unwrap_or_else(|| AuthFile::empty(path));
        if let Some(helper) = file.helper(registry) {
            Helper::find(helper, &self.path, path)?.store(server(registry), name, password)?;
            return Ok(Keeper::Helper(helper.to_owned()));
        }
        file.set(registry, &basic(name, password));
        file.write()?;
        Ok(Keeper::File(path.clone()))
    }

    /// Forgets a registry's credentials wherever they are kept; says where they were.
    ///
    /// # Errors
    /// What keeps them fails.
    pub fn erase(&self, registry: &str) -> Result<Vec<Keeper>, CredentialsError> {
        let mut forgot = Vec::new();
        for path in &self.files {
            if !path.exists() {
                continue;
            }
            let _guard = file::lock(path)?;
            let Some(mut file) = AuthFile::read(path)? else { continue };
            if let Some(name) = file.helper(registry) {
                let helper = Helper::find(name, &self.path, path)?;
                if helper.get(server(registry))?.is_some() {
                    helper.erase(server(registry))?;
                    forgot.push(Keeper::Helper(name.to_owned()));
                }
            }
            if file.remove(registry) {
                file.write()?;
                forgot.push(Keeper::File(path.clone()));
            }
        }
        Ok(forgot)
    }
}

/// What a registry is called to helpers.
fn server(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { DOCKER_KEY } else { registry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn keyring(files: &[&Path]) -> Keyring {
        Keyring { files: files.iter().map(|path| path.to_path_buf()).collect(), ..Keyring::default() }
    }

    fn password(name: &str, password: &str) -> Option<Credential> {
        Some(Credential::password(name, &Secret::new(password)).unwrap())
    }

    #[test]
    fn files_are_searched_as_docker_and_podman_do() {
        let keyring = |authfile: Option<&str>, set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> = set.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
            let variable = move |name: &str| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            Keyring::new(authfile.map(Path::new), &variable)
        };
        let all = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("PATH", "bin:/usr/bin::./x:/bin")];
        let found = keyring(None, &all);
        let files: Vec<&str> = found.files.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            files,
            ["/run/user/7/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"]
        );
        assert_eq!(found.path, [Path::new("/usr/bin"), Path::new("/bin")]);
        let moved = keyring(None, &[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("DOCKER_CONFIG", "/d")]);
        assert_eq!(moved.files[2], Path::new("/d/config.json"));
        assert_eq!(keyring(None, &[("REGISTRY_AUTH_FILE", "/x"), all[0]]).files, [Path::new("/x")]);
        assert_eq!(keyring(Some("y"), &[("REGISTRY_AUTH_FILE", "/x")]).files, [Path::new("y")]);
        let missing = keyring(Some("/nowhere/auth.json"), &[]).find("h.example", "").unwrap_err();
        assert!(matches!(missing, CredentialsError::File { .. }), "{missing}");
    }

    #[test]
    fn what_is_stored_is_found_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("new/auth.json"), dir.path().join("config.json"));
        std::fs::write(&second, r#"{"auths":{"h.example":{"auth":"b2xkOnBhc3M="}},"HttpHeaders":{"X":"y"}}"#).unwrap();
        let keyring = keyring(&[&first, &second]);
        assert_eq!(keyring.find("h.example", "a/b").unwrap(), password("old", "pass"));
        let kept = keyring.store("h.example", "me", &Secret::new("p:w")).unwrap();
        assert_eq!(kept, Keeper::File(first.clone()));
        assert_eq!(keyring.find("h.example", "a/b").unwrap(), password("me", "p:w"));
        assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(first.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(first.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
        let forgot = keyring.erase("h.example").unwrap();
        assert_eq!(forgot, [Keeper::File(first.clone()), Keeper::File(second.clone())]);
        assert_eq!(keyring.find("h.example", "a/b").unwrap(), None);
        assert_eq!(keyring.erase("h.example").unwrap(), []);
        assert!(std::fs::read_to_string(&second).unwrap().contains("HttpHeaders"), "what is not ours stays");
        let given = keyring.with_given(Some(Credential::parse("x:y:z")));
        assert_eq!(given.find("any.example", "a").unwrap(), password("x", "y:z"));
    }

    #[test]
    fn a_link_to_a_file_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real.json"), dir.path().join("link.json"));
        std::fs::write(&real, "{}").unwrap();
        std::os::unix::fs::symlink("real.json", &link).unwrap();
        keyring(&[&link]).store("h.example", "me", &Secret::new("x")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(keyring(&[&real]).find("h.example", "").unwrap(), password("me", "x"));
    }

    #[test]
    fn a_broken_file_is_told_without_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        for text in ["{\"auths\": {\"h.example\": {\"auth\": hunter2}}}", "[\"hunter2\"]", "{\"auths\": \"hunter2\"}"] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:?}", keyring(&[&path]).find("h.example", "").unwrap_err());
            assert!(error.contains("auth.json") && !error.contains("hunter2"), "{error}");
        }
        for auth in ["aHVudGVyMg==", "hunter2", "gIA="] {
            std::fs::write(&path, format!(r#"{{"auths":{{"h.example":{{"auth":"{auth}"}}}}}}"#)).unwrap();
            let error = keyring(&[&path]).find("h.example", "").unwrap_err();
            assert!(matches!(error, CredentialsError::Entry { .. }), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", Credential::parse("me:hunter2")).contains("hunter2"));
    }

    #[test]
    fn helpers_keep_what_they_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = bin.join("docker-credential-box");
        let script = format!(
            "#!/bin/sh\nread -r line\ncd {}\ncase $1 in\nstore) echo \"$line\" > kept ;;\nerase) rm kept ;;\n\
             get) [ \"$line\" = slow.example ] && exec sleep 1; cat kept 2>/dev/null || \
             {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nesac\n",
            dir.path().display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, r#"{"credHelpers":{"h.example":"box","x.example":"none"},"auths":{"h.example":{}}}"#)
            .unwrap();
        let keyring = Keyring { path: vec![bin], ..keyring(&[&file]) };
        assert_eq!(keyring.find("h.example", "").unwrap(), None);
        let kept = keyring.store("h.example", "me", &Secret::new("secret")).unwrap();
        assert_eq!(kept, Keeper::Helper("box".to_owned()));
        assert!(!std::fs::read_to_string(&file).unwrap().contains("auth\""));
        assert_eq!(keyring.find("h.example", "").unwrap(), password("me", "secret"));
        std::fs::write(dir.path().join("kept"), r#"{"Username":"<token>","Secret":"t"}"#).unwrap();
        assert_eq!(keyring.find("h.example", "").unwrap(), Some(Credential::Identity(Secret::new("t"))));
        assert!(keyring.erase("h.example").unwrap().contains(&Keeper::Helper("box".to_owned())));
        assert_eq!(keyring.find("h.example", "").unwrap(), None);
        assert!(matches!(keyring.find("x.example", "").unwrap_err(), CredentialsError::NoHelper(..)));
        for hostile in ["../x", "a/b", "", "/bin/sh"] {
            std::fs::write(&file, serde_json::json!({"credsStore": hostile}).to_string()).unwrap();
            let found = keyring.find("h.example", "");
            assert!(hostile.is_empty() == found.is_ok(), "{hostile}: {found:?}");
        }
    }
}
