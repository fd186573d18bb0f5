//! Workspaces whose instances a control plane runs: with a passport, where their agent can redeem one; else bare, by the
//! first register from where they are.

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::control_plane::{ControlPlane, IDENTITY, SECRET, platform, reborn};
use crate::support::engine::on_each;
use crate::support::{ADMIN, Answer, TestApp};

/// A runtime of which this server knows nothing: what runs is the control plane's business.
const FOREIGN: &str = "claude-code";

async fn create(app: &TestApp, runtime: &str) -> String {
    let created = app.post("/workspaces", json!({"name": "a", "runtime": runtime})).await.ok();
    created["id"].as_str().unwrap().to_owned()
}

/// A published agent boots, with whatever it holds, on this machine.
async fn boots(app: &TestApp, id: &str, token: Option<&str>, ip: &str) -> Answer {
    let url = format!("http://{ip}:8000");
    let said = json!({"url": url, "ligand": null, "agent_card": {"name": "a", "url": url}});
    Agent::with(id, token).register_with(app, said, &[]).await
}

async fn beats(app: &TestApp, id: &str, token: &str) -> Answer {
    Agent::with(id, Some(token)).beat(app).await
}

async fn is(app: &TestApp, id: &str) -> (String, i64, String) {
    let shown = app.workspace(id).await;
    let text = |key: &str| shown[key].as_str().unwrap_or_default().to_owned();
    (text("status"), shown["generation"].as_i64().unwrap(), text("url"))
}

fn token(answer: Answer) -> String {
    answer.ok()["auth_token"].as_str().unwrap().to_owned()
}

/// A workspace of a foreign runtime that serves. Gives its id, and what its agent holds.
async fn serving(app: &TestApp, at: &ControlPlane) -> (String, String) {
    at.next_ip("10.0.0.1");
    let id = create(app, FOREIGN).await;
    app.settle().await;
    let token = token(boots(app, &id, None, "10.0.0.1").await);
    beats(app, &id, &token).await.ok();
    app.settle().await;
    assert_eq!(is(app, &id).await, ("online".to_owned(), 1, "http://10.0.0.1:8000".to_owned()));
    (id, token)
}

/// Run on both engines.
fn with(name: &str, body: impl AsyncFn(TestApp, ControlPlane)) {
    on_each(name, async |db| {
        let at = ControlPlane::start().await;
        body(platform(db, &at, |_| {}), at).await;
    });
}

fn with_ours(name: &str, body: impl AsyncFn(TestApp, ControlPlane)) {
    on_each(name, async |db| {
        let at = ControlPlane::ours().await;
        body(platform(db, &at, |_| {}), at).await;
    });
}

#[test]
fn e2e_04_an_administrators_restart_stops_revokes_and_provisions_once() {
    with("e2e_04", async |app, at| {
        let (id, old) = serving(&app, &at).await;
        assert_eq!(at.counters().await["provision_calls"], 1);
        at.next_ip("10.0.0.2");
        let answer = app.post(&format!("/admin/workspaces/{id}/restart"), json!({})).await;
        answer.is(202, &json!({"status": "restart_dispatched", "workspace_id": id}));
        app.settle().await;
        assert_eq!(at.ended(), [format!("i-stub-{id}")]);
        assert_eq!(at.counters().await["provision_calls"], 2);
        assert_eq!(is(&app, &id).await.0, "provisioning");
        beats(&app, &id, &old).await.refuses(401, "invalid workspace auth token");
        let minted = token(boots(&app, &id, None, "10.0.0.2").await);
        assert_ne!(minted, old);
        beats(&app, &id, &minted).await.ok();
        app.settle().await;
        // What was planned is what serves: nothing is planned again.
        assert_eq!(
            is(&app, &id).await,
            ("online".to_owned(), 2, "http://10.0.0.2:8000".to_owned())
        );
        app.later(400).await;
        assert_eq!(at.counters().await["provision_calls"], 2);
    });
}

#[test]
fn e2e_05_what_was_written_meanwhile_comes_with_the_last_start() {
    with("e2e_05", async |app, at| {
        let (id, _) = serving(&app, &at).await;
        let restart = format!("/admin/workspaces/{id}/restart");
        app.post(&restart, json!({})).await.ok();
        let secret = json!({"key": "COLOUR", "value": "green"});
        app.post(&format!("/workspaces/{id}/secrets"), secret).await.ok();
        app.post(&restart, json!({})).await.ok();
        app.settle().await;
        let asked = at.provisions();
        assert!(asked.len() <= 3, "{}", asked.len());
        assert_eq!(asked.last().unwrap().body["env"]["COLOUR"], "green");
    });
}

#[test]
fn e2e_06_a_success_that_is_not_201_is_a_failure() {
    with("e2e_06", async |app, at| {
        at.instead("provision", 200, r#"{"instance_id":"i-1","state":"running"}"#);
        let id = create(&app, FOREIGN).await;
        app.settle().await;
        let shown = app.workspace(&id).await;
        assert_eq!(shown["status"], "failed");
        let listed = app.get("/workspaces").await.ok();
        assert_eq!(listed[0]["last_sample_error"], "provisioning failed");
        // It is tried again by itself.
        at.as_usual("provision");
        app.later(3600).await;
        assert_eq!(is(&app, &id).await.0, "provisioning");
    });
}

#[test]
fn ti_07_nobody_is_told_more_than_that_it_failed() {
    with("ti_07", async |app, at| {
        at.instead("provision", 503, r#"{"error":"no capacity in zone 7 for s3cret"}"#);
        let id = create(&app, FOREIGN).await;
        app.settle().await;
        let events = app.get(&format!("/events/{id}")).await.ok();
        let failed = events.as_array().unwrap().iter();
        let failed: Vec<&Value> =
            failed.filter(|it| it["event_type"] == "WORKSPACE_PROVISION_FAILED").collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0]["payload"]["error"], "provisioning failed");
        assert!(!events.to_string().contains("zone 7"));
        let listed = app.get("/workspaces").await.ok();
        assert_eq!(listed[0]["last_sample_error"], "provisioning failed");
        // An operator is told all of it.
        let why = app.workspace(&id).await["last_error"].as_str().unwrap().to_owned();
        assert!(why.contains("provision failed (503): no capacity in zone 7"), "{why}");
    });
}

#[test]
fn who_can_prove_nothing_takes_the_planned_generation_from_where_it_is() {
    with("bare", async |app, at| {
        let (id, old) = serving(&app, &at).await;
        at.next_ip("10.0.0.2");
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        // Before its predecessor has ended, whoever comes is that one.
        app.pass().await;
        app.settle().await;
        for (token, text) in [
            (None, "missing workspace auth token"),
            (Some(old.as_str()), "invalid workspace auth token"),
        ] {
            boots(&app, &id, token, "10.0.0.1").await.refuses(401, text);
        }
        boots(&app, &id, None, "10.0.0.9").await.refuses(401, "missing workspace auth token");
        let minted = token(boots(&app, &id, None, "10.0.0.2").await);
        boots(&app, &id, None, "10.0.0.2").await.refuses(401, "missing workspace auth token");
        beats(&app, &id, &minted).await.ok();
        app.settle().await;
        assert_eq!(
            is(&app, &id).await,
            ("online".to_owned(), 2, "http://10.0.0.2:8000".to_owned())
        );
    });
}

#[test]
fn an_instance_that_dies_is_replaced_and_its_successor_is_let_in() {
    with("dies", async |app, at| {
        let (id, old) = serving(&app, &at).await;
        at.next_ip("10.0.0.2");
        at.end(&format!("i-stub-{id}"), "terminated");
        app.later(200).await;
        app.later(60).await;
        assert_eq!(at.provisions().len(), 2);
        beats(&app, &id, &old).await.refuses(401, "invalid workspace auth token");
        let minted = token(boots(&app, &id, None, "10.0.0.2").await);
        beats(&app, &id, &minted).await.ok();
        app.settle().await;
        assert_eq!(is(&app, &id).await.1, 2);
    });
}

#[test]
fn an_end_that_is_not_to_be_had_holds_up_no_restart() {
    with("leaked", async |app, at| {
        let (id, _) = serving(&app, &at).await;
        at.next_ip("10.0.0.2");
        at.instead("stop", 500, "{}");
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        assert_eq!((at.ended().len(), at.provisions().len()), (3, 2));
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok().to_string();
        assert!(why.contains("could not be ended and is left to itself"), "{why}");
        let minted = token(boots(&app, &id, None, "10.0.0.2").await);
        beats(&app, &id, &minted).await.ok();
        app.settle().await;
        assert_eq!(is(&app, &id).await.0, "online");
    });
}

#[test]
fn what_is_removed_is_ended_for_as_long_as_it_takes() {
    with("removed", async |app, at| {
        let (id, _) = serving(&app, &at).await;
        at.instead("stop", 500, "{}");
        let path = format!("/workspaces/{id}?confirm=true");
        let removed = async {
            let answer = app.call("DELETE", &path, Some(ADMIN), None).await;
            assert_ne!(answer.status, 404, "{answer:?}");
            at.as_usual("stop");
        };
        app.meanwhile(removed).await;
        app.later(60).await;
        let ended = at.ended();
        assert!(
            ended.iter().all(|it| *it == format!("i-stub-{id}")) && ended.len() > 3,
            "{ended:?}"
        );
        boots(&app, &id, None, "10.0.0.1").await.refuses(401, "missing workspace auth token");
    });
}

#[test]
fn a_passport_goes_into_the_start_and_no_secret_does() {
    with_ours("passport", async |app, at| {
        let id = create(&app, "echo").await;
        let secret = json!({"key": "COLOUR", "value": "s3cret-green"});
        app.post(&format!("/workspaces/{id}/secrets"), secret).await.ok();
        app.settle().await;
        let body = &at.provisions()[0].body;
        let env = &body["env"];
        assert_eq!(
            (&env["LIGAND_STANDBY"], &env["LIGAND_GENERATION"]),
            (&json!("pull"), &json!("1"))
        );
        assert_eq!(
            (&body["generation"], &body["command"]),
            (&json!(1), &json!(["ligand", "agent"]))
        );
        let text = body.to_string();
        assert!(!text.contains("s3cret-green") && !text.contains("COLOUR"), "{text}");
        for credential in [SECRET, IDENTITY, ADMIN] {
            assert!(!text.contains(credential));
        }
        let passport = env["LIGAND_PASSPORT"].as_str().unwrap().to_owned();
        boots(&app, &id, None, "10.0.0.1").await.refuses(401, "missing workspace auth token");
        // Its answer may be lost: it is good until what it brought was used.
        token(boots(&app, &id, Some(&passport), "10.0.0.1").await);
        let minted = token(boots(&app, &id, Some(&passport), "10.0.0.1").await);
        beats(&app, &id, &minted).await.ok();
        boots(&app, &id, Some(&passport), "10.0.0.1")
            .await
            .refuses(401, "invalid workspace auth token");
        let values = format!("/workspaces/{id}/secrets/values");
        let values = app.call("GET", &values, Some(&minted), None).await.ok();
        assert_eq!(values, json!({"COLOUR": "s3cret-green"}));
        app.settle().await;
        // A restart: the old one holds what counts until the new one comes.
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let second = at.provisions()[1].body["env"]["LIGAND_PASSPORT"].as_str().unwrap().to_owned();
        assert_ne!(second, passport);
        let minted = token(boots(&app, &id, Some(&second), "10.0.0.2").await);
        beats(&app, &id, &minted).await.ok();
        assert_eq!(is(&app, &id).await.1, 2);
    });
}

#[test]
fn a_start_that_is_resumed_brings_another_passport_beside_the_first() {
    with_ours("resumed", async |app, at| {
        let id = create(&app, "echo").await;
        // Neither the start nor its outcome is known.
        at.instead("provision", 500, "{}");
        at.instead("instances", 500, "{}");
        app.pass().await;
        let first = at.provisions()[0].body["env"]["LIGAND_PASSPORT"].as_str().unwrap().to_owned();
        at.as_usual("provision");
        at.as_usual("instances");
        let app = reborn(app, &at);
        app.later(30).await;
        let sent = at.provisions();
        let second =
            sent.last().unwrap().body["env"]["LIGAND_PASSPORT"].as_str().unwrap().to_owned();
        assert_ne!(first, second);
        assert_eq!(sent.last().unwrap().body["generation"], 1);
        assert!(app.journal(&id).await.contains(&"resumed".to_owned()));
        for passport in [&first, &second] {
            token(boots(&app, &id, Some(passport), "10.0.0.1").await);
        }
    });
}

#[test]
fn a_start_whose_answer_was_lost_is_found_and_not_made_twice() {
    with_ours("found", async |app, at| {
        let id = create(&app, "echo").await;
        app.pass().await;
        // As if the server had died before it could write down what it heard.
        app.sql("UPDATE instances SET phase = 'planned', handle = NULL, started_at = NULL").await;
        app.sql("UPDATE workspaces SET due_at = 0").await;
        let app = reborn(app, &at);
        app.settle().await;
        assert_eq!(at.provisions().len(), 1);
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok().to_string();
        assert!(why.contains(&format!("i-stub-{id}")), "{why}");
        // The handle is on record, so the next server asks by it.
        let app = reborn(app, &at);
        app.sql("UPDATE workspaces SET due_at = 0").await;
        app.settle().await;
        let asked = at.asked("GET", "/status");
        assert_eq!(
            asked.last().unwrap().names("instance_id"),
            Some(format!("i-stub-{id}").as_str())
        );
    });
}

#[test]
fn secrets_reach_a_runtime_that_cannot_fetch_them_but_what_writes_code_does_not() {
    with("scm", async |app, at| {
        for (key, value) in
            [("GITHUB_TOKEN", "global"), ("GITEA_TOKEN", "global"), ("COLOUR", "green")]
        {
            app.post("/settings/secrets", json!({"key": key, "value": value})).await.ok();
        }
        let id = create(&app, FOREIGN).await;
        let own = json!({"key": "GITEA_TOKEN", "value": "own"});
        app.post(&format!("/workspaces/{id}/secrets"), own).await.ok();
        app.settle().await;
        let env = at.provisions().last().unwrap().body["env"].clone();
        assert_eq!((&env["COLOUR"], &env["GITEA_TOKEN"]), (&json!("green"), &json!("own")));
        assert_eq!((&env["GITHUB_TOKEN"], &env["LIGAND_PASSPORT"]), (&Value::Null, &Value::Null));
    });
}

#[test]
fn bf_05_a_console_is_the_control_planes() {
    with("console", async |app, at| {
        let (id, _) = serving(&app, &at).await;
        let path = format!("/workspaces/{id}/console");
        app.get(&path).await.is(200, &json!({"output": "booting"}));
        at.instead("console", 500, r#"{"error":"s3cret"}"#);
        let text = "control plane returned an error fetching console output";
        app.get(&path).await.refuses(502, text);
        app.call("GET", &path, None, None).await.refuses(401, "admin auth required");
        app.get("/workspaces//console").await.refuses(400, "workspace id required");
    });
}

/// What a foreign migrator does, from outside: the steps of the contract, with a target that nobody here started.
#[test]
fn e2e_10_a_foreign_migration_ends_at_its_target() {
    with("e2e_10", async |app, at| {
        let (id, source) = serving(&app, &at).await;
        let admin = |verb: &str| format!("/admin/workspaces/{id}/{verb}");
        // 1: the target boots with nothing; as long as its source is live, it is nobody.
        at.add("h-1", &id);
        boots(&app, &id, None, "10.9.0.1").await.refuses(401, "missing workspace auth token");
        // 2, 3: the source's credentials end, and the target takes the workspace up.
        app.post(&admin("revoke-auth-tokens"), json!({})).await.ok();
        app.post(&admin("revoke-auth-tokens"), json!({})).await.ok();
        beats(&app, &id, &source).await.refuses(401, "invalid workspace auth token");
        let target = token(boots(&app, &id, None, "10.9.0.1").await);
        beats(&app, &id, &target).await.ok();
        // 4: the advertised URL flips.
        app.settle().await;
        assert_eq!(
            is(&app, &id).await,
            ("online".to_owned(), 2, "http://10.9.0.1:8000".to_owned())
        );
        beats(&app, &id, &source).await.refuses(401, "invalid workspace auth token");
        // 5: from now on the target's box is what is asked about.
        let repoint = json!({"instance_id": "h-1", "provider": "hetzner"});
        app.post(&admin("set-compute-instance"), repoint).await.ok();
        app.later(30).await;
        beats(&app, &id, &target).await.ok();
        assert_eq!(app.workspace(&id).await["instance_id"], "h-1");
        // The source may end now: nobody here looks at it any more.
        at.end(&format!("i-stub-{id}"), "terminated");
        app.later(190).await;
        let asked = at.asked("GET", "/status");
        let last = asked.last().unwrap();
        assert_eq!(
            (last.names("instance_id"), last.names("provider")),
            (Some("h-1"), Some("hetzner"))
        );
        beats(&app, &id, &target).await.ok();
        app.settle().await;
        // 6: the settle restart brings secrets and credentials anew, where the workspace is now.
        let secret = json!({"key": "COLOUR", "value": "green"});
        app.post(&format!("/workspaces/{id}/secrets"), secret).await.ok();
        at.next_ip("10.9.0.2");
        let before = at.provisions().len();
        assert_eq!(app.post(&admin("restart"), json!({})).await.status, 202);
        app.settle().await;
        assert_eq!(at.ended().last().map(String::as_str), Some("h-1"));
        assert!(
            !at.ended().contains(&format!("i-stub-{id}")),
            "the source is its migrator's to end"
        );
        let sent = at.provisions();
        assert!(sent.len() > before);
        let body = &sent.last().unwrap().body;
        assert_eq!(
            (&body["provider"], &body["env"]["COLOUR"]),
            (&json!("hetzner"), &json!("green"))
        );
        let settled = token(boots(&app, &id, None, "10.9.0.2").await);
        beats(&app, &id, &settled).await.ok();
        app.settle().await;
        // 7: it serves, and what is on record is what serves. 8: only now the source goes.
        let (status, _, url) = is(&app, &id).await;
        assert_eq!((status.as_str(), url.as_str()), ("online", "http://10.9.0.2:8000"));
        let shown = app.workspace(&id).await;
        assert_eq!((&shown["instance_id"] != "h-1", &shown["provider"]), (true, &json!("hetzner")));
        boots(&app, &id, None, "10.0.0.1").await.refuses(401, "missing workspace auth token");
        boots(&app, &id, Some(&source), "10.0.0.1")
            .await
            .refuses(401, "invalid workspace auth token");
        // And on: the next restart stays where it is.
        app.post(&admin("restart"), json!({})).await.ok();
        app.settle().await;
        assert_eq!(at.provisions().last().unwrap().body["provider"], "hetzner");
    });
}

/// The same, and it fails: the source stays what it was, or is taken up again.
#[test]
fn e2e_10_a_foreign_migration_that_fails_leaves_its_source() {
    with("e2e_10_fails", async |app, at| {
        let (id, source) = serving(&app, &at).await;
        // Step 2 fails: a migrator goes no further, and nothing has changed.
        app.sql("ALTER TABLE credentials RENAME TO credentials_away").await;
        let path = format!("/admin/workspaces/{id}/revoke-auth-tokens");
        let failed = app.post(&path, json!({})).await;
        assert_eq!(failed.status, 500, "{failed:?}");
        app.sql("ALTER TABLE credentials_away RENAME TO credentials").await;
        beats(&app, &id, &source).await.ok();
        // Step 6 for one that is not there: a clean word, and nothing is begun.
        let unknown = "00000000-0000-4000-8000-000000000000";
        let path = format!("/admin/workspaces/{unknown}/restart");
        app.post(&path, json!({})).await.refuses(404, "workspace not found");
        // Step 2 succeeds, and the target never comes: the migrator keeps the source, by a restart of it.
        app.post(&format!("/admin/workspaces/{id}/revoke-auth-tokens"), json!({})).await.ok();
        beats(&app, &id, &source).await.refuses(401, "invalid workspace auth token");
        at.next_ip("10.0.0.3");
        app.post(&format!("/admin/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let again = token(boots(&app, &id, None, "10.0.0.3").await);
        beats(&app, &id, &again).await.ok();
        app.settle().await;
        assert_eq!(is(&app, &id).await.0, "online");
        assert_eq!(app.workspace(&id).await["instance_id"], Value::Null);
    });
}
