//! Pages as a browser shows them.

use std::path::Path;

use super::run::sh_timeout;

/// The document that headless Chromium has after it has loaded a page and run its scripts; `fragment` comes after the
/// page's name and may be empty.
#[track_caller]
pub fn rendered(page: &Path, fragment: &str) -> String {
    let dir = page.parent().expect("a page in a directory");
    let name = page.file_name().expect("a page").to_string_lossy();
    // A profile of its own: nothing is shared, nothing is left.
    let script = format!(
        "profile=$(mktemp -d -p \"$PWD\"); trap 'rm -rf \"$profile\"' EXIT; HOME=$profile timeout -k 5 60 chromium --headless \
         --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking --timeout=20000 \
         --user-data-dir=\"$profile\" --dump-dom \
         \"file://$PWD/\"'{name}{fragment}' 2> \"$profile/log\" || {{ cat \"$profile/log\" >&2; exit 1; }}"
    );
    let out = sh_timeout(dir, &script, std::time::Duration::from_secs(90));
    assert!(out.success(), "chromium on {}: {}\n{}", page.display(), out.status, out.stderr);
    out.stdout
}
