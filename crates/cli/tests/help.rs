//! Help is documentation: a change of it is to be seen.

use crate::run::{Home, run};

const VERBS: &[&str] = &[
    "",
    "agent",
    "ws",
    "ws create",
    "ws list",
    "ws get",
    "ws send",
    "ws restart",
    "ws recover",
    "ws pause",
    "ws resume",
    "ws hibernate",
    "ws wake",
    "ws delete",
    "ws logs",
    "ws files",
    "ws files ls",
    "ws files cat",
    "ws files put",
    "ws files rm",
    "ws shell",
    "secret",
    "secret set",
    "secret rotate",
    "messages",
    "messages list",
    "messages show",
    "messages replay",
    "messages drop",
    "why",
    "migrate",
    "drain",
    "events",
    "doctor",
    "drill",
    "provider",
    "provider check",
    "scaletest",
    "completions",
    "openapi",
];

const SERVER_VERBS: &[&str] =
    &["up", "serve", "serve platform", "serve fleet", "provider serve", "config", "config show"];

fn help(verb: &str) {
    let args: Vec<&str> = verb.split_whitespace().chain(["--help"]).collect();
    let ran = run(&Home::new(), &[], &args);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{verb}");
    let name = if verb.is_empty() { "ligand".to_owned() } else { verb.replace(' ', "-") };
    let text: String = ran.stdout.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    insta::assert_snapshot!(name, text);
}

#[test]
fn client_verbs() {
    VERBS.iter().for_each(|verb| help(verb));
}

#[test]
fn server_verbs() {
    SERVER_VERBS.iter().for_each(|verb| help(verb));
}

#[test]
fn version_is_that_of_the_package() {
    let ran = run(&Home::new(), &[], &["--version"]);
    assert_eq!(ran.stdout, format!("ligand {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(&Home::new(), &[], &["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.stdout.contains("restart"), "{shell}");
    }
}
