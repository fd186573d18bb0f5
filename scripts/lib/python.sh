# Sourced, after steps.sh. The Python environment of examples/python-agent, which tests start as a foreign agent.

# The Python that every user of the machine may run: as root, instances have users of their own, who cannot enter
# somebody's home.
shared_python() {
    if [[ -x /usr/bin/python3 ]]; then echo /usr/bin/python3; else command -v python3; fi
}

# Makes the environment, unless it is there and holds what the requirements ask for; exports LIGAND_TEST_PYTHON.
python_environment() {
    local requirements=examples/python-agent/requirements.txt venv marker python
    python=$(shared_python)
    venv=$(target_dir)/python-agent
    marker=$venv/installed-requirements.txt
    if cmp --silent <(cat "$requirements" <(echo "# $python")) "$marker" && "$venv/bin/python" -c '' 2>/dev/null; then
        say "    $venv is up to date"
    else
        say "    installing $requirements into $venv"
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$requirements"
        cat "$requirements" <(echo "# $python") > "$marker"
    fi
    export LIGAND_TEST_PYTHON=$venv/bin/python
}
