//! Servers with open doors, and servers of an organisation.

use std::fs;

use crate::http::Call;
use crate::stack::Stack;

#[test]
fn compat_says_so_mints_no_admin_token_and_stays_on_this_machine() {
    let stack = Stack::prepare(&["up"], &[("LIGAND_AUTH", "compat")]);
    let ran = stack.run_server(&["--once"]);
    assert_eq!(ran.code, 0, "{}", ran.transcript());
    for words in ["warning: --auth compat", "there is no admin token"] {
        assert!(ran.stderr.contains(words), "`{words}` is missing: {}", ran.stderr);
    }
    assert!(!stack.data().join("admin-token").exists());
    let ran = stack.run_server(&["--listen", "0.0.0.0:0"]);
    assert_eq!(ran.code, 2, "{}", ran.transcript());
    for words in ["auth (environment LIGAND_AUTH): ", "--listen 127.0.0.1:8080", "--force-compat"] {
        assert!(ran.stderr.contains(words), "`{words}` is missing: {}", ran.stderr);
    }
    let ran = stack.run_server(&["--listen", "0.0.0.0:0", "--force-compat", "--once"]);
    assert!(ran.stderr.contains("is listening at"), "{}", ran.transcript());
}

#[test]
fn a_server_of_an_organisation_is_found_and_answers_nobody_elses_calls() {
    let mut stack = Stack::prepare(&["up"], &[("MOLECULE_ORG_ID", "acme")]);
    stack.restart();
    stack.ok(&["ws", "list"]);
    stack.ok(&["doctor"]);
    let record = fs::read_to_string(stack.record()).unwrap();
    assert!(record.contains("acme"), "{record}");
    let answer = Call::new(stack.url(), "GET /workspaces").token(&stack.admin()).send();
    assert_eq!((answer.status, answer.body.as_str()), (404, ""));
}

#[test]
fn an_address_runs_out_of_guesses_and_is_told_when_to_come_back() {
    let vars = [("RATE_LIMIT", "30")];
    let stack = Stack::start(&["serve", "platform"], &vars);
    let guess = || Call::new(stack.url(), "GET /workspaces").token("guess").send().status;
    let answers: Vec<u16> = (0..40).map(|_| guess()).collect();
    assert!(answers.contains(&401) && answers.ends_with(&[429; 5]), "{answers:?}");
}
