# Shortcuts, one line each. Nothing needs `just`: each line says what to type without it.

# format, lints and dependencies, without running tests
check:
    cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings && scripts/check-dependencies

# everything that a change must pass; arguments go to cargo test
test *arguments:
    scripts/test -- {{arguments}}

# Ligand with a demo workspace
up *arguments:
    scripts/up {{arguments}}

# accept the snapshots of a change in output that is meant
snap *arguments:
    INSTA_UPDATE=always scripts/with-services cargo test --workspace --locked {{arguments}}

# how fast it is and what it weighs, measured on this machine; arguments go to `ligand scaletest`
gates *arguments:
    scripts/gates {{arguments}}

# the identity protocol explored; with `mutants`: every guard taken away in turn
model *arguments:
    cargo run --locked -p ligand-model -- {{arguments}}

# every guard, the property that misses it, and after how many steps
mutants:
    cargo run --locked -p ligand-model -- mutants

# everybody who takes part in a migration killed in each of its phases; arguments go to `ligand drill`
kills *arguments:
    cargo run --locked -p ligand -- drill --table migrate {{arguments}}
