#!/usr/bin/env bash
# Fuzzes the parsers of hostile input for a minute in all (or $1 seconds each).
# Runs on stable Rust: no sanitizer, for the parsers are safe code; what is
# looked for is a panic, a hang or a broken promise.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-15}
cargo install --list | grep -q '^cargo-fuzz v0.13.2:' || cargo install --locked cargo-fuzz@0.13.2
command -v c++ >/dev/null || { apt-get update -q && apt-get install -qy g++; }
export RUSTC_BOOTSTRAP=1 PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
for target in $(cargo fuzz list); do
    echo "== fuzz $target"
    log=$(mktemp)
    if ! cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 >"$log" 2>&1; then
        tail -n 60 "$log"
        rm -f "$log"
        exit 1
    fi
    grep -E '^(#[0-9]+.*DONE|Done )' "$log"
    rm -f "$log"
done
