#!/usr/bin/env bash
# Fuzzes the parsers of hostile input, as many at a time as there are CPUs: those
# of images for a minute each, the others for five seconds (or all of them for
# $1 seconds each).
# Runs on stable Rust: no sanitizer, for the parsers are safe code; what is
# looked for is a panic, a hang or a broken promise.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo install --list | grep -q '^cargo-fuzz v0.13.2:' || cargo install --locked cargo-fuzz@0.13.2
command -v c++ >/dev/null || { apt-get update -q && apt-get install -qy g++; }
export RUSTC_BOOTSTRAP=1 PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

fuzz() { # target [seconds]
    local target=$1 seconds=${2:-} corpora=("fuzz/corpus/$1")
    case $target in
        layer_tar | layer_index | documents | reference) : "${seconds:=60}" ;;
        *) : "${seconds:=5}" ;;
    esac
    # What is found on the way is kept in the first directory; the seeds are only read.
    mkdir -p "${corpora[0]}"
    [ -d "fuzz/seeds/$target" ] && corpora+=("fuzz/seeds/$target")
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! cargo fuzz run --sanitizer none "$target" "${corpora[@]}" -- -max_total_time="$seconds" \
        -timeout=5 -rss_limit_mb=2048 -max_len=65536 >"$log" 2>&1; then
        echo "== fuzz $target: failed"
        tail -n 60 "$log"
        return 1
    fi
    echo "== fuzz $target: $(grep -E '^Done ' "$log")"
}
export -f fuzz

cargo fuzz build --sanitizer none
cargo fuzz list | xargs -I{} -P "$(nproc)" bash -euo pipefail -c 'fuzz "$@"' fuzz {} "$@"
