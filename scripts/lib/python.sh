# Sourced, after steps.sh. Python environments: of examples/python-agent, which tests start as a foreign agent, and of one
# that is older.

# The Python that every user of the machine may run: as root, instances have users of their own, who cannot enter
# somebody's home.
shared_python() {
    if [[ -x /usr/bin/python3 ]]; then echo /usr/bin/python3; else command -v python3; fi
}

# Makes an environment from a file of requirements, under this name, unless it is there and holds what they ask for.
python_with() {
    local requirements=$1 venv marker python
    venv=$(target_dir)/$2
    python=$(shared_python)
    marker=$venv/installed-requirements.txt
    if cmp --silent <(cat "$requirements" <(echo "# $python")) "$marker" && "$venv/bin/python" -c '' 2>/dev/null; then
        say "    $venv is up to date"
    else
        say "    installing $requirements into $venv"
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$requirements"
        cat "$requirements" <(echo "# $python") > "$marker"
    fi
}

# Exports LIGAND_TEST_PYTHON, and LIGAND_TEST_PYTHON_OLDER for the SDK as it was with the older protocol.
python_environment() {
    python_with examples/python-agent/requirements.txt python-agent
    python_with crates/cli/tests/older/requirements.txt python-older
    export LIGAND_TEST_PYTHON=$(target_dir)/python-agent/bin/python
    export LIGAND_TEST_PYTHON_OLDER=$(target_dir)/python-older/bin/python
}
