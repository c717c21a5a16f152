//! `lamel login` and `lamel logout`

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use lamel_image::reference::{DEFAULT_REGISTRY, Reference};
use lamel_image::registry::{Keeper, Secret};

use super::{HostArgs, ask_password};
use crate::output::print;

/// The longest password that is read from standard input; tokens are long.
const MAX_PASSWORD: u64 = 64 << 10;

/// Log in to a registry, and keep name and password for it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
They are kept where podman keeps them, in a file that only its owner reads, or by the credential helper that the file
names.

Example:
  lamel login -u me --password-stdin registry.example < token")]
pub(crate) struct Args {
    /// Its host, with a port if it has one
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,
    /// Your name there
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Your password, which everybody on this machine may see here: prefer --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin", value_parser = secret)]
    password: Option<Secret>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    #[command(flatten)]
    host: HostArgs,
}

/// Log out of a registry: forget name and password for it
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// Its host, with a port if it has one
    #[arg(value_name = "REGISTRY", default_value = DEFAULT_REGISTRY)]
    registry: String,
    #[command(flatten)]
    host: HostArgs,
}

#[allow(clippy::unnecessary_wraps, reason = "the form of a parser of values")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

/// Logs in.
pub(crate) fn run(args: &Args) -> Result<()> {
    let registry = host(&args.registry)?;
    let name = match &args.username {
        Some(name) => name.clone(),
        None => ask_name()?,
    };
    let password = match (&args.password, args.password_stdin) {
        (_, true) => read_password()?,
        (Some(password), false) => password.clone(),
        (None, false) => ask_password()?,
    };
    match args.host.registries()?.login(&registry, &name, &password)? {
        Keeper::File(path) => tracing::info!("credentials for {registry} are kept in {}", path.display()),
        Keeper::Helper(helper) => tracing::info!("credentials for {registry} are kept by docker-credential-{helper}"),
    }
    print([b"Login Succeeded!".to_vec()])
}

/// Logs out.
pub(crate) fn logout(args: &LogoutArgs) -> Result<()> {
    let registry = host(&args.registry)?;
    let forgot = args.host.registries()?.logout(&registry)?;
    if forgot.is_empty() {
        bail!("not logged in to {registry}");
    }
    print(forgot.into_iter().map(|keeper| {
        let place = match keeper {
            Keeper::File(path) => path.display().to_string(),
            Keeper::Helper(helper) => format!("docker-credential-{helper}"),
        };
        format!("Removed login credentials for {registry} from {place}").into_bytes()
    }))
}

/// The host that an address or a name of a registry stands for.
fn host(text: &str) -> Result<String> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let bare = bare.trim_end_matches('/');
    let parsed = format!("{bare}/x").parse::<Reference>().ok();
    let found = parsed.filter(|parsed| !bare.contains('/') && (parsed.repository() == "x" || is_dockers(parsed, bare)));
    Ok(found.with_context(|| format!("{text:?} is no registry: give host[:port]"))?.registry().to_owned())
}

/// Whether it is Docker's registry by one of its names, and not a part of a repository there.
fn is_dockers(parsed: &Reference, bare: &str) -> bool {
    parsed.registry() == DEFAULT_REGISTRY && parsed.repository() == "library/x" && bare.ends_with(DEFAULT_REGISTRY)
}

fn ask_name() -> Result<String> {
    let mut out = std::io::stderr();
    write!(out, "Username: ").and_then(|()| out.flush()).context("standard error")?;
    let mut name = String::new();
    std::io::stdin().read_line(&mut name).context("standard input")?;
    match name.trim() {
        "" => bail!("no name was given: use --username"),
        name => Ok(name.to_owned()),
    }
}

fn read_password() -> Result<Secret> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_PASSWORD + 1).read_to_string(&mut text);
    // The error of a text that is no UTF-8 does not show it.
    read.context("the password on standard input")?;
    if text.len() as u64 > MAX_PASSWORD {
        bail!("a password of more than {MAX_PASSWORD} bytes on standard input");
    }
    let password = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(password.strip_suffix('\r').unwrap_or(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_hosts() {
        for (given, found) in [
            ("docker.io", "docker.io"),
            ("https://index.docker.io/", "docker.io"),
            ("h.example", "h.example"),
            ("http://localhost:5000/", "localhost:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(host(given).unwrap(), found);
        }
        for given in ["", "h.example/team", "name", "https://h.example/v2", "a b", "h.example:x"] {
            assert!(host(given).is_err(), "{given:?}");
        }
    }
}
