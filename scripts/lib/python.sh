# Sourced, after steps.sh. The Python environment of examples/python-agent, which tests start as a foreign agent.

# Makes the environment, unless it is there and holds what the requirements ask for; exports LIGAND_TEST_PYTHON.
python_environment() {
    local requirements=examples/python-agent/requirements.txt venv marker
    venv=$(target_dir)/python-agent
    marker=$venv/installed-requirements.txt
    if cmp --silent "$requirements" "$marker" && "$venv/bin/python" -c '' 2>/dev/null; then
        say "    $venv is up to date"
    else
        say "    installing $requirements into $venv"
        python3 -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$requirements"
        cp "$requirements" "$marker"
    fi
    export LIGAND_TEST_PYTHON=$venv/bin/python
}
