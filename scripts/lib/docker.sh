# Sourced, after steps.sh. A Docker engine for one run of the tests: socket, data and containers in a temporary folder, with
# no bridge and no rule of the firewall, so that it shares nothing with an engine that the machine may have. Instances are
# on the machine's network, each with a loopback port of its own.

# The shell in which tests run scripts, as an image of its own.
docker_test_image=ligand-shell:test

# Whether a private engine can be run here at all.
docker_possible() { ((EUID == 0)); }

# Starts the engine, imports the images and exports LIGAND_TEST_DOCKER_HOST. Whoever calls it sees to it that docker_stop is
# called. An engine that is named beforehand is used as it is; `none` leaves these tests out.
docker_start() {
    if [[ ${LIGAND_TEST_DOCKER_HOST:-} == none ]]; then
        say "    left out, as LIGAND_TEST_DOCKER_HOST=none says"
        return 0
    fi
    if [[ -z ${LIGAND_TEST_DOCKER_HOST:-} ]]; then
        if ! docker_possible; then
            say "    left out: an engine of the tests' own needs root; LIGAND_TEST_DOCKER_HOST=unix://… names another"
            export LIGAND_TEST_DOCKER_HOST=none
            return 0
        fi
        has dockerd || die "Docker's engine is missing: run scripts/test, which installs it"
        docker_run_engine
    fi
    docker_import_images
}

docker_run_engine() {
    local try
    docker_dir=$(mktemp -d "${TMPDIR:-/tmp}/ligand-docker.XXXXXX")
    # In a process group of its own: Ctrl-C ends it when the tests have ended, not before.
    setsid dockerd --host "unix://$docker_dir/engine.sock" --data-root "$docker_dir/data" --exec-root "$docker_dir/run" \
        --pidfile "$docker_dir/pid" --containerd-namespace "ligand-$$" --containerd-plugins-namespace "ligand-plugins-$$" \
        --bridge=none --iptables=false --ip-forward=false --ip-masq=false --shutdown-timeout 1 \
        >"$docker_dir/log" 2>&1 </dev/null &
    docker_pid=$!
    for try in {1..150}; do
        if DOCKER_HOST=unix://$docker_dir/engine.sock docker version >/dev/null 2>&1; then
            export LIGAND_TEST_DOCKER_HOST=unix://$docker_dir/engine.sock
            say "    $(dockerd --version) at $LIGAND_TEST_DOCKER_HOST"
            return 0
        fi
        kill -0 "$docker_pid" 2>/dev/null || break
        sleep 0.2
    done
    cat "$docker_dir/log" >&2
    die "Docker's engine did not start (look $try)"
}

# The agent, from this checkout, and a shell with the usual programs.
docker_import_images() {
    local root busybox
    DOCKER_HOST=$LIGAND_TEST_DOCKER_HOST scripts/image
    busybox=$(command -v busybox) || die "busybox is missing: run scripts/test, which installs it"
    root=$(mktemp -d "${TMPDIR:-/tmp}/ligand-shell.XXXXXX")
    mkdir -p "$root/bin" "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    "$busybox" --list | grep -vx busybox | xargs -I{} ln -s busybox "$root/bin/{}"
    tar -C "$root" -c . |
        DOCKER_HOST=$LIGAND_TEST_DOCKER_HOST docker import --change 'ENV PATH=/bin' - "$docker_test_image" >/dev/null
    rm -rf "$root"
}

# Stops that engine, if it was started, with all that runs in it, and removes its folder.
docker_stop() {
    local try
    [[ -n ${docker_pid:-} ]] || return 0
    kill "$docker_pid" 2>/dev/null || true
    for try in {1..100}; do
        kill -0 "$docker_pid" 2>/dev/null || break
        sleep 0.2
    done
    if kill -0 "$docker_pid" 2>/dev/null; then
        say "Docker's engine does not end (look $try): killed"
        kill -9 "$docker_pid" "$(cat "$docker_dir/run/containerd/containerd.pid" 2>/dev/null)" 2>/dev/null || true
    fi
    wait "$docker_pid" 2>/dev/null || true
    # Namespaces and layers are mounts, and some stay.
    awk -v below="$docker_dir/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r |
        xargs -r umount --lazy 2>/dev/null || true
    rm -rf "$docker_dir" || true
    docker_pid=
}
