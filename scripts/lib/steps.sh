# Sourced. How the scripts talk and where they find things; everything they say goes to stderr.

# say LINE...
say() { printf '%s\n' "$@" >&2; }

die() {
    say "error: $*"
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# quietly COMMAND...: shows what it printed only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1 </dev/null) || {
        say "$output"
        die "failed: $*"
    }
}

# step TITLE COMMAND...: runs it under a heading, and says how long it took.
step() {
    current_step=$1
    local begin=$SECONDS
    shift
    say "" "==> $current_step"
    "$@"
    say "    $((SECONDS - begin)) s"
}

# report NAME: for an EXIT trap; says which step failed, or that none did.
report() {
    local code=$?
    if ((code == 0)); then
        say "" "$1: everything passed in $SECONDS s"
    else
        say "" "$1: FAILED at '${current_step:-start}' after $SECONDS s (exit code $code)"
    fi
}

# Where cargo builds, as an absolute path.
target_dir() {
    local dir=${CARGO_TARGET_DIR:-target}
    [[ $dir == /* ]] || dir=$PWD/$dir
    printf '%s\n' "$dir"
}

# A login shell has rustup's programs in its path; a script that a service starts may not.
need_cargo() {
    has cargo || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    has cargo || die "cargo is missing: install Rust from https://rustup.rs"
}
