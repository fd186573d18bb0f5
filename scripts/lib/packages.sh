# Sourced, after steps.sh. Installs what is missing, and only that: where nothing is missing, apt is not called.

wanted=()

# want PACKAGE WHY: notes a missing package for install_wanted.
want() {
    say "missing: $1 ($2)"
    wanted+=("$1")
}

want_c_compiler() {
    if ! has cc; then want gcc "links programs and compiles the C parts of ring and SQLite"; fi
    if ! has cc || ! echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; then
        want libc6-dev "the C headers that those parts include"
    fi
}

want_certificates() {
    if [[ ! -e /etc/ssl/certs/ca-certificates.crt && ! -e /etc/pki/tls/certs/ca-bundle.crt ]]; then
        want ca-certificates "downloads from crates.io and PyPI"
    fi
}

want_python() {
    # The machine's own, if there is one: python.sh says why.
    local python=/usr/bin/python3
    if [[ ! -x $python ]]; then python=python3; fi
    if ! has python3; then want python3 "the check of dependencies and the Python agent"; fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        want python3-venv "the environment of the Python agent"
    fi
}

want_sandbox() {
    if ! has bwrap; then want bubblewrap "the sandbox of the process backend, which is tried"; fi
}

# Needs postgres.sh.
want_postgres() {
    if [[ -z $(postgres_bin) ]]; then want postgresql "its server programs; tests start a server of their own"; fi
}

# Needs docker.sh. Without root no engine can be started here, whatever is installed.
want_docker() {
    [[ ${LIGAND_TEST_DOCKER_HOST:-} != none ]] && docker_possible || return 0
    if ! has dockerd; then want docker.io "Docker's engine; tests start one of their own"; fi
    # One that needs libraries of this machine runs in no container.
    if ! has busybox || ldd "$(command -v busybox)" >/dev/null 2>&1; then
        want busybox-static "the shell in the containers of tests"
    fi
}

install_wanted() {
    ((${#wanted[@]} > 0)) || return 0
    has apt-get || die "no apt-get here: install the equivalent of: ${wanted[*]}"
    ((EUID == 0)) || die "not root: run this first: sudo apt-get install --no-install-recommends ${wanted[*]}"
    say "installing: ${wanted[*]}"
    keep_postgres_quiet
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update
    # In run level 1, maintainer scripts start no service.
    RUNLEVEL=1 quietly apt-get install --yes --no-install-recommends "${wanted[@]}"
    wanted=()
    hash -r
}

# Debian's package creates a database cluster and starts it, unless told beforehand.
keep_postgres_quiet() {
    local conf=/etc/postgresql-common/createcluster.conf
    if [[ " ${wanted[*]} " != *" postgresql "* || -e $conf ]]; then return 0; fi
    mkdir -p "${conf%/*}"
    echo 'create_main_cluster = false' >"$conf"
}

# rustup's minimal profile comes without these two.
need_cargo_tools() {
    local tool
    for tool in fmt:rustfmt clippy:clippy; do
        cargo "${tool%:*}" --version >/dev/null 2>&1 && continue
        has rustup || die "cargo ${tool%:*} is missing, and there is no rustup to install it"
        say "installing: ${tool#*:} (rustup component)"
        rustup component add "${tool#*:}"
    done
}
