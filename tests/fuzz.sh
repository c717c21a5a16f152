#!/usr/bin/env bash
# Fuzzes the parsers of hostile input: those of images for a minute each, the
# others for five seconds (or all of them for $1 seconds each).
# Runs on stable Rust: no sanitizer, for the parsers are safe code; what is
# looked for is a panic, a hang or a broken promise.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A seconds=([layer_tar]=60 [layer_index]=60 [documents]=60 [reference]=60)
cargo install --list | grep -q '^cargo-fuzz v0.13.2:' || cargo install --locked cargo-fuzz@0.13.2
command -v c++ >/dev/null || { apt-get update -q && apt-get install -qy g++; }
export RUSTC_BOOTSTRAP=1 PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
for target in $(cargo fuzz list); do
    echo "== fuzz $target"
    log=$(mktemp)
    # What is found on the way is kept in the first directory; the seeds are only read.
    corpora=("fuzz/corpus/$target")
    mkdir -p "${corpora[0]}"
    [ -d "fuzz/seeds/$target" ] && corpora+=("fuzz/seeds/$target")
    if ! cargo fuzz run --sanitizer none "$target" "${corpora[@]}" -- -max_total_time="${1:-${seconds[$target]:-5}}" \
        -timeout=5 -rss_limit_mb=2048 -max_len=65536 >"$log" 2>&1; then
        tail -n 60 "$log"
        rm -f "$log"
        exit 1
    fi
    grep -E '^(#[0-9]+.*DONE|Done )' "$log"
    rm -f "$log"
done
