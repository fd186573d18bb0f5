# Sourced, after steps.sh. A PostgreSQL server for one run of the tests: an empty cluster in a temporary folder, on a free
# port of 127.0.0.1, with nothing that would make it durable (unless LIGAND_TEST_POSTGRES_DURABLE is set). It shares no file, port or process with any other server.

# The folder of the newest server's programs, or nothing. Debian keeps them apart, one folder per major version.
postgres_bin() {
    local newest
    newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort --version-sort | tail -n 1)
    [[ -x $newest ]] || newest=$(command -v initdb || true)
    printf '%s\n' "${newest%/initdb}"
}

# PostgreSQL refuses to run as root; the package brought a user for it.
as_postgres() {
    if ((EUID == 0)); then
        (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@")
    else
        "$@"
    fi
}

# Starts the server and exports LIGAND_TEST_POSTGRES_URL. Whoever calls it sees to it that postgres_stop is called.
postgres_start() {
    local bin log port try parent=${TMPDIR:-/tmp}
    bin=$(postgres_bin)
    [[ -n $bin ]] || die "PostgreSQL's server programs are missing: run scripts/test, which installs them"
    # Root's temporary folder may be root's alone.
    as_postgres test -x "$parent" || parent=/tmp
    postgres_dir=$(mktemp -d "$parent/ligand-postgres.XXXXXX")
    if ((EUID == 0)); then chown postgres: "$postgres_dir"; fi
    log=$postgres_dir/log
    as_postgres "$bin/initdb" --pgdata="$postgres_dir/data" --username=ligand --auth=trust \
        --encoding=UTF8 --locale=C --no-sync >/dev/null
    as_postgres tee -a "$postgres_dir/data/postgresql.conf" >/dev/null <<'CONF'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
CONF
    if [[ -z ${LIGAND_TEST_POSTGRES_DURABLE:-} ]]; then
        printf 'fsync = off\nfull_page_writes = off\n' | as_postgres tee -a "$postgres_dir/data/postgresql.conf" >/dev/null
    fi
    # A port is free when the server could bind it: asking first and binding later would leave a gap. These are below
    # the range that Linux gives to outgoing connections.
    for try in {1..20}; do
        port=$((20000 + RANDOM % 12000))
        if as_postgres "$bin/pg_ctl" --pgdata="$postgres_dir/data" --options="-p $port" --log="$log" \
            --wait --silent start 2>/dev/null; then
            as_postgres "$bin/createdb" --host=127.0.0.1 --port="$port" --username=ligand ligand
            export LIGAND_TEST_POSTGRES_URL="postgres://ligand@127.0.0.1:$port/ligand"
            say "    $("$bin/postgres" --version) at $LIGAND_TEST_POSTGRES_URL"
            return 0
        fi
        grep -q 'Address already in use' "$log" || break
    done
    cat "$log" >&2
    die "PostgreSQL did not start (try $try)"
}

# Stops that server, if it was started, and removes its folder. pg_ctl reads the pid from the folder.
postgres_stop() {
    [[ -n ${postgres_dir:-} ]] || return 0
    as_postgres "$(postgres_bin)/pg_ctl" --pgdata="$postgres_dir/data" --mode=immediate --wait --silent stop \
        >/dev/null 2>&1 || true
    rm -rf "$postgres_dir"
    postgres_dir=
}
