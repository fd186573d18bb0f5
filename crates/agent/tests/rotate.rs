//! A new credential without a restart, and a passport instead of one: each under faults.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::agent::{Dir, Start, until};
use crate::fake::{Call, Platform, Reply, beaten, refused, welcome};

const T1: &str = "token-one-0123456789abcdefghijklmnopqrstuvw";
const T2: &str = "token-two-0123456789abcdefghijklmnopqrstuvw";
const T3: &str = "token-three-0123456789abcdefghijklmnopqrstu";
const PASSPORT: &str = "passport-0123456789abcdefghijklmnopqrstuvwx";

fn ordered(serial: i64) -> Reply {
    Reply::Json(200, json!({ "status": "ok", "next_heartbeat_seconds": 1, "rotate": serial }))
}

fn brought(token: &str, serial: i64) -> Reply {
    Reply::Json(200, json!({ "status": "rotated", "auth_token": token, "serial": serial }))
}

fn used(calls: &[Call], bearer: &str) -> bool {
    calls.iter().any(|call| call.is("heartbeat", Some(bearer)))
}

fn error(call: &Call) -> Option<&str> {
    call.body["ligand"]["rotation_error"].as_str()
}

/// A platform on which `T1` works until `T2` was used, and which wants serial 3.
async fn rotating() -> Platform {
    Platform::start(|call, before| {
        let done = used(before, T2);
        match (call.name.as_str(), call.bearer.as_deref()) {
            ("register", None) => welcome(T1),
            (_, Some(T1)) if done => refused(Some("reread-credential")),
            ("rotate", Some(T1)) => brought(T2, 3),
            (_, Some(T1)) => ordered(3),
            (_, Some(T2)) => beaten(),
            _ => refused(None),
        }
    })
    .await
}

#[tokio::test]
async fn it_is_written_beside_then_used_then_alone() {
    let (platform, dir) = (rotating().await, Dir::new());
    let _agent = Start::of(&platform, &dir).env("MOLECULE_ORG_ID", "org-7").go();
    let calls = platform.until("the new one", |calls| used(calls, T2)).await;
    let asked = calls.iter().position(|call| call.name == "rotate").expect("asked");
    assert_eq!(calls[asked].body, json!({ "workspace_id": "ws-1", "serial": 3 }));
    assert_eq!(calls[asked].org.as_deref(), Some("org-7"));
    assert!(calls[asked + 1].is("heartbeat", Some(T2)), "at once");
    until("the new one in hand", || dir.text("configs/.auth_token") == T2).await;
    until("the end of the old", || !dir.path("configs/.auth_token.next").exists()).await;
    let mode = fs::metadata(dir.path("configs/.auth_token")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = dir.text("stderr");
    assert!(!said.contains(T1) && !said.contains(T2), "{said}");
}

/// The disk takes no new file, and has room again later.
#[tokio::test]
async fn where_it_cannot_be_written_the_old_one_stays_and_heartbeats_say_so() {
    let (platform, dir) = (rotating().await, Dir::new());
    let obstacle = dir.path("configs/.auth_token.next.new");
    fs::create_dir_all(&obstacle).expect("made");
    let agent = Start::of(&platform, &dir).go();
    let says = |call: &Call| {
        let said = error(call).is_some_and(|text| text.contains(".auth_token.next"));
        said && call.bearer.as_deref() == Some(T1)
    };
    platform.until_beat("a heartbeat that says so", says).await;
    platform.until_beat("another", says).await;
    let calls = platform.calls();
    assert!(!used(&calls, T2), "not used before it is safe");
    assert_eq!(calls.iter().filter(|call| call.name == "rotate").count(), 1, "asked once");
    assert_eq!(dir.text("configs/.auth_token"), T1, "a restart finds it");
    assert!(dir.text("stderr").contains(".auth_token.next"));

    drop(agent);
    let _again = Start::of(&platform, &dir).go();
    platform
        .until_beat("it works after a restart", |call| call.bearer.as_deref() == Some(T1))
        .await;
    platform.until_beat("and still says so", says).await;
    fs::remove_dir(&obstacle).expect("removed");
    platform.until("the new one", |calls| used(calls, T2)).await;
    let well = |call: &Call| call.bearer.as_deref() == Some(T2) && error(call).is_none();
    platform.until_beat("no more complaint", well).await;
    until("the file", || dir.text("configs/.auth_token") == T2).await;
}

#[tokio::test]
async fn a_refused_one_leads_back_to_the_old_one_which_asks_again() {
    let platform = Platform::start(|call, before| {
        let rotations = before.iter().filter(|call| call.name == "rotate").count();
        match (call.name.as_str(), call.bearer.as_deref()) {
            ("register", _) => Reply::Json(200, json!({ "status": "registered" })),
            ("rotate", Some(T1)) if rotations == 0 => brought(T2, 3),
            ("rotate", Some(T1)) => brought(T3, 3),
            (_, Some(T1)) if used(before, T3) => refused(None),
            (_, Some(T1)) => ordered(3),
            (_, Some(T3)) => beaten(),
            _ => refused(Some("exit")),
        }
    })
    .await;
    let dir = Dir::new();
    fs::create_dir(dir.path("configs")).expect("made");
    fs::write(dir.path("configs/.auth_token"), T1).expect("written");
    let _agent = Start::of(&platform, &dir).env("LIGAND_MANAGED", "1").go();
    let calls = platform.until("the second one", |calls| used(calls, T3)).await;
    let lost = calls.iter().position(|call| call.is("heartbeat", Some(T2))).expect("tried");
    assert!(calls[lost + 1].is("heartbeat", Some(T1)), "back at once");
    assert!(error(&calls[lost + 1]).is_some_and(|text| text.contains("refused")));
    until("the file", || dir.text("configs/.auth_token") == T3).await;
}

/// Crashes: before the first use, and between it and its record.
#[tokio::test]
async fn what_a_crash_left_beside_is_found() {
    for used_before in [false, true] {
        let dir = Dir::new();
        let platform = Platform::start(move |call, before| {
            let over = used_before || before.iter().any(|it| it.bearer.as_deref() == Some(T2));
            match (call.name.as_str(), call.bearer.as_deref()) {
                (_, Some(T1)) if over => refused(Some("reread-credential")),
                ("register", Some(T1 | T2)) => Reply::Json(200, json!({ "status": "registered" })),
                (_, Some(T1 | T2)) => beaten(),
                _ => refused(None),
            }
        })
        .await;
        fs::create_dir(dir.path("configs")).expect("made");
        fs::write(dir.path("configs/.auth_token"), T1).expect("written");
        fs::write(dir.path("configs/.auth_token.next"), T2).expect("written");
        let _agent = Start::of(&platform, &dir).env("LIGAND_MANAGED", "1").go();
        platform.until("the newer one", |calls| used(calls, T2)).await;
        until("the file", || dir.text("configs/.auth_token") == T2).await;
        until("one file", || !dir.path("configs/.auth_token.next").exists()).await;
    }
}

#[tokio::test]
async fn a_passport_is_redeemed_before_a_copied_credential_and_kept_from_the_program() {
    let platform = Platform::start(|call, before| {
        let redeemed = before.iter().filter(|call| call.is("register", Some(PASSPORT))).count();
        match (call.name.as_str(), call.bearer.as_deref()) {
            ("register", Some(PASSPORT)) if redeemed == 0 => Reply::Lost,
            ("register", Some(PASSPORT)) if redeemed == 1 => welcome(T2),
            ("register", Some(T2)) => Reply::Json(200, json!({ "status": "registered" })),
            (_, Some(T2)) => beaten(),
            _ => refused(Some("exit")),
        }
    })
    .await;
    let dir = Dir::new();
    fs::create_dir(dir.path("configs")).expect("made");
    fs::write(dir.path("configs/.auth_token"), T1).expect("copied");
    let start = || {
        let start = Start::of(&platform, &dir).env("LIGAND_PASSPORT", PASSPORT);
        start.env("LIGAND_GENERATION", "7").env("LIGAND_MANAGED", "1")
    };
    let agent = start().go();
    let calls = platform.until("its own credential", |calls| used(calls, T2)).await;
    assert!(calls[0].is("register", Some(PASSPORT)) && calls[1].is("register", Some(PASSPORT)));
    assert_eq!(calls[0].key, calls[1].key, "the lost answer is asked for again");
    until("the end of the copy", || !dir.path("configs/.auth_token.previous").exists()).await;
    assert_eq!(dir.text("configs/.auth_token"), T2);
    assert_eq!(dir.text("configs/.auth_token.generation"), "7");
    drop(agent);

    let before = platform.calls().len();
    let _again = start().go();
    let calls = platform.until("a restart", |calls| calls.len() > before).await;
    assert!(calls[before].is("register", Some(T2)), "what was obtained with it comes first");
    let said = dir.text("stderr");
    assert!(calls.iter().all(|call| call.bearer.as_deref() != Some(T1)), "never as the other");
    assert!(!said.contains(PASSPORT) && !said.contains(T2), "{said}");
}

/// With the feature the names of our own list switch a rule off; without it, and with others, nothing does.
#[tokio::test]
async fn a_mutant_is_one_by_name_and_by_build_only() {
    for (name, off) in
        [("rotate-beside", cfg!(feature = "mutants-by-name")), ("passport-again", false)]
    {
        let (platform, dir) = (rotating().await, Dir::new());
        // Nothing can be written beside: only who writes over the old one gets on.
        fs::create_dir_all(dir.path("configs/.auth_token.next.new")).expect("made");
        let _agent = Start::of(&platform, &dir).env("LIGAND_MUTANT", name).go();
        let calls = platform.until("three beats", |calls| calls.len() >= 5).await;
        assert_eq!(used(&calls, T2), off, "{name}");
        assert!(calls.iter().all(|call| call.body != Value::Null));
    }
}
