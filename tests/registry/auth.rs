//! Registries that ask who comes: by htpasswd, by tokens, and those that show who they are by TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::User;
use crate::common::{Outcome, TIMEOUT, run_in, sh_timeout, spawn_captured};
use crate::daemon::Daemon;
use crate::faults::serve;
use crate::fixture::{Image, noise};
use crate::server::{Asked, Reply, Server};

const NAME: &str = "somebody";
const PASSWORD: &str = "hunter2:with?all&kinds";

/// Panics if what was printed, all of the log included, has the password in it in any form.
#[track_caller]
fn silent(done: &Outcome, token: &str) {
    // That is where each byte of a request would stand, sixteen a line.
    assert!(!done.stderr.contains("TRACE ureq"), "{}", done.stderr);
    let basic = STANDARD.encode(format!("{NAME}:{PASSWORD}"));
    for secret in ["hunter2", &basic, token] {
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(secret.is_empty() || !said.contains(secret), "{secret} in the output");
    }
}

fn traced(user: &User, args: &[&str]) -> Outcome {
    let mut command = user.command(args);
    command.env("LAMEL_LOG", "trace");
    spawn_captured(command, TIMEOUT)
}

/// Logs in through standard input, as people should.
fn login(user: &User, registry: &str, password: &str) -> Outcome {
    let program = crate::Subject::lamel_bin().canonicalize().unwrap();
    fs::write(user.path("password"), format!("{password}\n")).unwrap();
    let path = user.scratch.path().display();
    let command = format!(
        "env -i HOME={path}/home XDG_RUNTIME_DIR={path}/run CONTAINERS_REGISTRIES_CONF=/dev/null LAMEL_LOG=trace {} login \
         -u {NAME} --password-stdin {registry} < password",
        program.display()
    );
    sh_timeout(user.scratch.path(), &command, TIMEOUT)
}

/// What works with every kind of authentication.
fn in_and_out(user: &User, registry: &Daemon, image: &Image, token: &dyn Fn() -> String) {
    let (host, creds) = (registry.host(), format!("{NAME}:{PASSWORD}"));
    let name = format!("{host}/private/app:1");
    image.write(&user.path("layout"), "t");
    let put = format!("skopeo copy -q --dest-creds '{creds}' --dest-tls-verify=false oci:layout:t docker://{name}");
    run_in(user.scratch.path(), &put);

    let stranger = traced(user, &["pull", &name]);
    assert!(!stranger.success());
    assert!(stranger.stderr.contains(&format!("`lamel login {host}`")), "{}", stranger.stderr);
    let wrong = traced(user, &["pull", "--creds", &format!("{NAME}:wrong"), &name]);
    assert!(!wrong.success() && wrong.stderr.contains("with the credentials that were given"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains(&STANDARD.encode(format!("{NAME}:wrong"))));
    let given = traced(user, &["pull", "--creds", &creds, &name]);
    assert!(given.success(), "{}", given.stderr);
    silent(&given, &token());

    let refused = login(user, &host, "wrong");
    assert!(!refused.success() && !user.path("run/containers/auth.json").exists(), "{}", refused.stderr);
    let accepted = login(user, &host, PASSWORD);
    assert!(accepted.success() && accepted.stdout.contains("Login Succeeded!"), "{}", accepted.stderr);
    silent(&accepted, &token());
    let file = user.path("run/containers/auth.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Both repositories are the user's: blobs are mounted. The other way they are sent.
    let pushed = traced(user, &["push", &name, &format!("{host}/private/copy:1")]);
    assert!(pushed.success(), "{}", pushed.stderr);
    assert_eq!(pushed.stderr.matches(": mounted from another repository").count(), 2, "{}", pushed.stderr);
    silent(&pushed, &token());
    let fresh = Image::new(&[("fresh", noise(7, 2_000_000))]);
    fresh.write(&user.path("fresh"), "localhost/fresh:1");
    let sent = traced(user, &["push", "--root", "fresh", "localhost/fresh:1", &format!("{host}/private/fresh:1")]);
    assert!(sent.success() && sent.stderr.matches(": pushed, ").count() == 2, "{}", sent.stderr);
    silent(&sent, &token());

    // skopeo takes lamel's file and finds what lamel pushed; lamel takes skopeo's.
    let copy =
        format!("skopeo inspect --authfile {} --tls-verify=false docker://{host}/private/fresh:1", file.display());
    assert!(run_in(user.scratch.path(), &copy).contains(&fresh.manifest.digest));
    let logout = user.lamel(&["logout", &host]);
    assert!(logout.contains("Removed login credentials"), "{logout}");
    user.fails(&["pull", &name]);
    user.fails(&["logout", &host]);
    let theirs = "skopeo login --authfile theirs.json --tls-verify=false -u somebody --password-stdin";
    run_in(user.scratch.path(), &format!("printf '%s' '{PASSWORD}' | {theirs} {host}"));
    assert_eq!(user.lamel(&["pull", "-q", "--authfile", "theirs.json", &name]), image.manifest.digest);
}

#[test]
fn by_name_and_password() {
    let user = User::new();
    let dir = user.scratch.dir("registry");
    run_in(&dir, &format!("htpasswd -Bbc users {NAME} '{PASSWORD}' 2> /dev/null"));
    let auth = format!("auth:\n  htpasswd:\n    realm: r\n    path: {}/users\n", dir.display());
    let registry = Daemon::start(&dir, &auth, "");
    in_and_out(&user, &registry, &Image::new(&[("f", noise(8, 100_000))]), &String::new);
}

#[test]
fn a_mistake_on_the_command_line_is_told_without_secrets() {
    let user = User::new();
    for args in [
        &["login", "-u", "me", "-p", "hunter2", "not/a/registry"][..],
        &["login", "-p", "hunter2", "--password-stdin", "h.example"],
        &["pull", "--creds", "me:hunter2", "Not:A:Name"],
        &["pull", "--creds", ":hunter2", "--retry", "0", "127.0.0.1:1/app"],
        &["pull", "--creds", "me:hunter2", "--no-such-option", "127.0.0.1:1/app"],
        &["pull", "--creds", "me:hunter2", "--retry", "0", "127.0.0.1:1/app"],
    ] {
        let done = traced(&user, args);
        assert!(!done.success(), "{args:?}");
        silent(&done, "");
    }
}

/// Who gives tokens: to whoever knows the password, for everything that is asked for.
fn token_server(dir: &Path) -> Server {
    let subject = "-subj /CN=tokens -days 30 -nodes";
    run_in(dir, &format!("openssl req -x509 -newkey rsa:2048 {subject} -keyout key.pem -out cert.pem 2> /dev/null"));
    let pem = fs::read_to_string(dir.join("cert.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let dir = dir.to_owned();
    Server::start(move |asked| {
        let known = STANDARD.encode(format!("{NAME}:{PASSWORD}"));
        if asked.header("authorization").is_some_and(|value| value != format!("Basic {known}")) {
            return Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong name or password"}]}"#);
        }
        let access: Vec<_> = if asked.header("authorization").is_some() { scopes(asked) } else { Vec::new() };
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = json!({"iss": "issuer", "sub": NAME, "aud": "service", "exp": now + 300, "nbf": now - 10, "iat": now - 10,
                            "jti": format!("{now}"), "access": access});
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(&dir, &signed)));
        fs::write(dir.join("last"), &token).unwrap();
        Reply::new(200, json!({"token": token, "expires_in": 300}).to_string())
    })
}

/// What a request for a token asks for, as claims.
fn scopes(asked: &Asked) -> Vec<serde_json::Value> {
    let query = asked.path.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|field| field.strip_prefix("scope="));
    scopes
        .map(|scope| {
            let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
            let [kind, name, actions] = scope.split(':').collect::<Vec<_>>().try_into().unwrap();
            json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
        })
        .collect()
}

fn sign(dir: &Path, text: &str) -> Vec<u8> {
    let input = tempfile::NamedTempFile::new_in(dir).unwrap();
    fs::write(input.path(), text).unwrap();
    let done = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", "key.pem"])
        .arg(input.path())
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(done.status.success());
    done.stdout
}

#[test]
fn by_tokens() {
    let user = User::new();
    let dir = user.scratch.dir("registry");
    let tokens = token_server(&dir);
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token?fixed=1\n    service: service\n    issuer: issuer\n    rootcertbundle: \
         {}/cert.pem\n",
        tokens.host(),
        dir.display()
    );
    let registry = Daemon::start(&dir, &auth, "");
    let image = Image::new(&[("f", noise(9, 100_000)), ("g", noise(10, 50_000)), ("h", noise(11, 50_000))]);
    let creds = format!("{NAME}:{PASSWORD}");
    image.write(&user.path("layout"), "t");
    let many = format!("{}/many:1", registry.host());
    let put = format!("skopeo copy -q --dest-creds '{creds}' --dest-tls-verify=false oci:layout:t docker://{many}");
    run_in(user.scratch.path(), &put);
    let before = tokens.asked("/token").len();
    user.lamel(&["pull", "--creds", &creds, &many]);
    let asked = tokens.asked("/token").split_off(before);
    assert_eq!(asked.len(), 1, "one token serves a manifest and all blobs: {asked:?}");
    assert!(asked[0].path.contains("fixed=1&service=service&scope=repository:many:pull&account=somebody"), "{asked:?}");
    let last = || fs::read_to_string(dir.join("last")).unwrap();
    in_and_out(&user, &registry, &Image::new(&[("f", noise(12, 100_000))]), &last);
    let mounts = tokens.asked("scope=repository:private/copy:pull,push&scope=repository:private/app:pull");
    assert_eq!(mounts.len(), 1, "to mount, both repositories are asked for at once");
}

/// An authority, and a certificate of this machine, which is a client's too.
fn make_certificates(dir: &Path) {
    run_in(
        dir,
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca -keyout ca.key \
         -out ca.pem 2> /dev/null
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout tls.key -out tls.csr \
         2> /dev/null
         printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > ext
         openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out tls.pem \
         2> /dev/null",
    );
}

#[test]
fn by_an_identity_token() {
    let user = User::new();
    let image = Image::new(&[("f", noise(16, 20_000))]);
    let elsewhere = Server::start(|_| Reply::new(200, r#"{"access_token":"stolen"}"#));
    let to = elsewhere.host();
    let tokens = Server::start(move |asked| {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        if asked.path.starts_with("/moved") {
            return Reply::new(307, "").header("Location", format!("http://{to}/token"));
        }
        let known = form.contains("grant_type=refresh_token") && form.contains("refresh_token=hunter2:identity&");
        if asked.method == "POST" && known && form.contains("scope=repository:app:pull&service=s") {
            return Reply::new(200, r#"{"access_token":"hunter2-access"}"#);
        }
        Reply::new(401, "")
    });
    for place in ["token", "moved"] {
        let realm = format!("Bearer realm=\"http://{}/{place}\",service=\"s\"", tokens.host());
        let served = image.clone();
        let registry = Server::start(move |asked| match asked.header("authorization") {
            Some("Bearer hunter2-access") => serve(&served, asked),
            _ => Reply::new(401, "").header("WWW-Authenticate", realm.clone()),
        });
        let auths = json!({"auths": {registry.host(): {"identitytoken": "hunter2:identity"}}});
        fs::write(user.path("auth.json"), auths.to_string()).unwrap();
        let name = format!("{}/app", registry.host());
        let done = traced(&user, &["pull", "--plain-http", "--authfile", "auth.json", &name]);
        silent(&done, "hunter2-access");
        assert_eq!(done.success(), place == "token", "{}", done.stderr);
        assert_eq!(done.stderr.contains("for its first host alone"), place == "moved", "{}", done.stderr);
    }
    assert_eq!(elsewhere.asked("").len(), 0);
}

#[test]
fn by_certificate() {
    let user = User::new();
    let dir = user.scratch.dir("registry");
    make_certificates(&dir);
    let tls = format!("  tls: {{certificate: {0}/tls.pem, key: {0}/tls.key}}\n", dir.display());
    let registry = Daemon::start(&dir, "", &tls);
    let image = Image::new(&[("f", noise(13, 20_000))]);
    image.write(&user.path("layout"), "t");
    registry.put(&user.path("layout"), "t", "app:1");
    let name = format!("{}/app:1", registry.host());
    assert_eq!(user.lamel(&["pull", &name]), image.manifest.digest, "this machine need not show who it is");
    assert_eq!(user.lamel(&["pull", "--tls-verify=false", &name]), image.manifest.digest);
    let unknown = user.fails(&["pull", "--tls-verify", &name]);
    assert!(unknown.contains("certificate") && unknown.contains("--tls-verify=false"), "{unknown}");
    user.fails(&["pull", "--plain-http", "--retry", "0", &name]);
    let mut command = user.command(&["pull", "--tls-verify=true", &name]);
    command.env("SSL_CERT_FILE", dir.join("ca.pem"));
    let trusted = spawn_captured(command, TIMEOUT);
    assert_eq!(trusted.stdout.trim(), image.manifest.digest, "{}", trusted.stderr);
    let certs = user.scratch.dir(format!("home/.config/containers/certs.d/{}", registry.host()));
    fs::copy(dir.join("ca.pem"), certs.join("ca.crt")).unwrap();
    assert_eq!(user.lamel(&["pull", "--tls-verify", &name]), image.manifest.digest, "an authority for this host");
}

#[test]
fn by_certificates_of_both() {
    let user = User::new();
    let dir = user.scratch.dir("registry");
    make_certificates(&dir);
    let tls =
        format!("  tls: {{certificate: {0}/tls.pem, key: {0}/tls.key, clientcas: [{0}/ca.pem]}}\n", dir.display());
    let registry = Daemon::start(&dir, "", &tls);
    let image = Image::new(&[("f", noise(14, 20_000))]);
    image.write(&user.store(), "localhost/app:1");
    let name = format!("{}/app:1", registry.host());
    user.fails(&["push", "--tls-verify", "--retry", "0", "localhost/app:1", &name]);
    let certs = user.scratch.dir(format!("home/.config/containers/certs.d/{}", registry.host()));
    for (from, to) in [("ca.pem", "ca.crt"), ("tls.pem", "me.cert"), ("tls.key", "me.key")] {
        fs::copy(dir.join(from), certs.join(to)).unwrap();
    }
    assert_eq!(user.lamel(&["push", "--tls-verify", "localhost/app:1", &name]), image.manifest.digest);
    assert_eq!(user.lamel(&["pull", "--tls-verify", &name]), image.manifest.digest);
}
