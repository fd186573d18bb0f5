//! `kill -9`, of whatever there is, at whatever moment.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::stack::{PATIENCE, Stack, generation, now, pause, say, until};

/// A platform with one workspace online, and its id.
fn one() -> (Stack, String) {
    let stack = Stack::platform();
    stack.ok(&["ws", "create", "a", "--wait"]);
    let id = stack.id("a");
    (stack, id)
}

/// What the journal tells of each generation, but for what says nothing of its course. An agent may register
/// before the server has heard of its start: then the two have changed places, and are put back.
fn story(stack: &Stack, id: &str) -> Vec<(i64, String)> {
    let why = stack.why(id);
    let entries = why["journal"].as_array().unwrap().iter();
    let mut told: Vec<(i64, String)> = entries
        .filter_map(|entry| {
            Some((entry["generation"].as_i64()?, entry["kind"].as_str()?.to_owned()))
        })
        .collect();
    for at in 1..told.len() {
        if told[at].1 == "started" && told[at - 1].1 == "registered" {
            told.swap(at - 1, at);
        }
    }
    told
}

fn lived(generation: i64, kinds: &[&str]) -> Vec<(i64, String)> {
    kinds.iter().map(|kind| (generation, (*kind).to_owned())).collect()
}

/// The kept events, read with `ligand events` from the first one on until one fits.
fn events(stack: &Stack, last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut verb = stack.follow(&["events", "--after", "0", "--output", "json"]);
    let mut child = verb.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (send, receive) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let mut seen: Vec<Value> = Vec::new();
    while !seen.last().is_some_and(&last) {
        let line = receive.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("only {seen:?}"));
        seen.push(serde_json::from_str(&line).unwrap());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(receive);
    reader.join().unwrap();
    seen
}

#[test]
fn a_killed_agent_is_replaced() {
    let (stack, id) = one();
    let leader = stack.leader(&id, 1);
    let begun = now();
    stack.kill_instance(leader);
    until("generation 2 is online", || {
        let seen = stack.workspace("a");
        (seen["status"] == "online" && generation(&seen) == 2).then_some(())
    });
    say(&format!("from kill -9 to online: {:?}", begun.elapsed()));
    assert!(begun.elapsed().as_secs() < 10);
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    stack.settled(&id);
    assert_eq!(stack.processes(), [stack.leader(&id, 2)]);
    let first = lived(1, &["planned", "started", "registered", "lost"]);
    let second = lived(2, &["planned", "started", "registered"]);
    assert_eq!(story(&stack, &id), [first, second].concat());
    let told = stack.ok(&["why", "a"]);
    assert!(told.contains("generation 1 killed by signal 9"), "{told}");
    let is = |event: &Value, name: &str, of| {
        event["event"] == name && event["payload"]["generation"] == of
    };
    let seen = events(&stack, |event| is(event, "WORKSPACE_ONLINE", 2));
    let at = |name, of| seen.iter().position(|event| is(event, name, of));
    let order =
        [at("WORKSPACE_OFFLINE", 1), at("WORKSPACE_PROVISIONING", 2), at("WORKSPACE_ONLINE", 2)];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} in {seen:#?}");
    assert!(seen.is_sorted_by_key(|event| event["seq"].as_i64()));
}

#[test]
fn a_killed_server_finds_what_runs() {
    let (mut stack, id) = one();
    let leader = stack.leader(&id, 1);
    for round in 1..=2 {
        stack.kill_server();
        assert_eq!(stack.processes(), [leader], "round {round}");
        assert_eq!(stack.cli(&["ws", "list"]).code, 3, "nobody answers");
        stack.restart();
        assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
        assert_eq!(stack.settled(&id), 1);
        assert_eq!((stack.processes(), stack.leader(&id, 1)), (vec![leader], leader));
        assert_eq!(story(&stack, &id), lived(1, &["planned", "started", "registered"]));
    }
    // A later server watches what an earlier one started.
    stack.kill_instance(leader);
    until("generation 2 is online", || (stack.settled(&id) == 2).then_some(()));
    assert_eq!(stack.processes(), [stack.leader(&id, 2)]);
}

#[test]
fn an_agent_that_died_while_the_server_was_away_is_replaced() {
    let (mut stack, id) = one();
    stack.kill_server();
    stack.kill_instance(stack.leader(&id, 1));
    until("it is gone", || stack.processes().is_empty().then_some(()));
    stack.restart();
    let begun = now();
    until("generation 2 is online", || {
        let seen = stack.workspace("a");
        (seen["status"] == "online" && generation(&seen) == 2).then_some(())
    });
    say(&format!("from the server's start to online: {:?}", begun.elapsed()));
    assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n");
    let first = lived(1, &["planned", "started", "registered", "lost"]);
    assert_eq!(story(&stack, &id)[..4], first);
    assert_eq!(stack.processes(), [stack.leader(&id, 2)]);
}

#[test]
fn a_server_killed_amid_a_restart_finishes_it() {
    let (mut stack, id) = one();
    let mut last = 1;
    for round in 0..6 {
        stack.ask(&format!("POST /workspaces/{id}/restart"));
        // Each round a little later: before the plan, before the start, before it is recorded, …
        pause(Duration::from_millis(round * 6));
        stack.kill_server();
        stack.restart();
        let reached = until("the restart is done", || {
            let reached = stack.settled(&id);
            (reached > last).then_some(reached)
        });
        assert!(reached <= last + 2, "round {round}: generation {reached} after {last}");
        last = reached;
        assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n", "round {round}");
        assert_eq!(stack.processes(), [stack.leader(&id, reached)], "round {round}");
    }
}

#[test]
fn a_restart_while_a_dead_agent_is_replaced_settles_online() {
    let (stack, id) = one();
    let mut last = 1;
    for round in 0..4 {
        stack.kill_instance(stack.leader(&id, last));
        pause(Duration::from_millis(round * 10));
        stack.ask(&format!("POST /workspaces/{id}/restart"));
        let reached = stack.settled(&id);
        assert!((last + 1..=last + 2).contains(&reached), "round {round}: {reached} after {last}");
        last = reached;
        assert_eq!(stack.ok(&["ws", "send", "a", "hi"]), "echo: hi\n", "round {round}");
        assert_eq!(stack.processes(), [stack.leader(&id, reached)], "round {round}");
    }
}
