//! Who is let in: passports, candidates, revocation, the contract's open doors.

use std::time::Duration;

use ligand_domain::id::{Generation, WorkspaceId};
use ligand_server::access;
use ligand_server::config::Auth;
use ligand_server::journal::Work;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online, unclaimed};
use crate::support::engine::on_each;
use crate::support::{Answer, TestApp, both};

const UNKNOWN: &str = "00000000-0000-4000-8000-000000000000";

/// A passport for one generation, valid for an hour.
async fn passport(app: &TestApp, id: &str, generation: i64) -> Agent {
    let mut work = Work::begin(&app.app).await.unwrap();
    let until = work.now.after(Duration::from_secs(3600));
    let of = (id.parse::<WorkspaceId>().unwrap(), Generation::new(generation));
    let token = access::mint_passport(&app.app, &mut work, of, Some("fake"), until).await.unwrap();
    work.commit().await.unwrap();
    Agent::with(id, Some(token.reveal()))
}

fn token(answer: &Value) -> Option<&str> {
    answer["auth_token"].as_str()
}

async fn revoke(app: &TestApp, id: &str) -> Answer {
    app.post(&format!("/admin/workspaces/{id}/revoke-auth-tokens"), json!({})).await
}

fn told(answer: &Answer) -> (Option<&str>, Option<&str>) {
    answer.refuses(401, "invalid workspace auth token");
    (answer.body["code"].as_str(), answer.body["action"].as_str())
}

both! {
    async fn a_passport_becomes_its_generation_and_may_be_presented_again(app: TestApp) {
        let (id, old) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let passport = passport(&app, &id, 2).await;
        // It opens a generation, and nothing else.
        passport.beat(&app).await.refuses(401, "invalid workspace auth token");
        let why = format!("/workspaces/{id}/why");
        app.call("GET", &why, passport.token.as_deref(), None).await.refuses(401, "invalid workspace auth token");
        let first = passport.register(&app).await.ok();
        assert_eq!((&first["generation"], token(&first).map(str::len)), (&json!(2), Some(43)));
        assert_eq!(told(&old.beat(&app).await), (Some("superseded"), Some("exit")));
        // Its reply was lost: another value, beside the first.
        let second = passport.register(&app).await.ok();
        assert_ne!(token(&first), token(&second));
        let (first, second) = (Agent::with(&id, token(&first)), Agent::with(&id, token(&second)));
        second.beat(&app).await.ok();
        // The first that is used ends its siblings and the passport.
        assert_eq!(told(&first.beat(&app).await), (Some("superseded"), Some("reread-credential")));
        assert_eq!(told(&passport.register(&app).await), (Some("superseded"), Some("reread-credential")));
        second.beat(&app).await.ok();
    }

    async fn a_passport_is_worth_nothing_when_its_time_is_over_or_its_generation(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let current = passport(&app, &id, 1).await;
        let never = passport(&app, &id, 7).await;
        assert!(never.register(&app).await.status == 401, "nobody planned that generation");
        app.app.clock.advance(Duration::from_secs(3601));
        assert_eq!(told(&current.register(&app).await).0, Some("lapsed"));
        // What it minted does not lapse by itself.
        let (id, _) = (id, agent);
        let fresh = passport(&app, &id, 1).await.register(&app).await.ok();
        app.app.clock.advance(Duration::from_secs(3601));
        Agent::with(&id, token(&fresh)).beat(&app).await.ok();
    }

    async fn a_candidate_is_answered_and_changes_nothing(app: TestApp) {
        let (id, source) = online(&app, "a").await;
        app.sql("UPDATE workspaces SET newest_generation = 2, candidate_generation = 2").await;
        let before = app.workspace(&id).await;
        let passport = passport(&app, &id, 2).await;
        let url = json!({"url": "http://localhost:6666"});
        let lost = passport.register_with(&app, url.clone(), &[]).await.ok();
        let got = passport.register_with(&app, url.clone(), &[]).await.ok();
        let target = Agent::with(&id, token(&got));
        // Pending, then active: admitted as the candidate every time.
        for _ in 0..2 {
            target.beat_with(&app, json!({"current_task": "mine"})).await.ok();
            target.register_with(&app, url.clone(), &[]).await.ok();
        }
        assert_eq!(told(&Agent::with(&id, token(&lost)).beat(&app).await).1, Some("reread-credential"));
        assert_eq!(app.workspace(&id).await, before, "the source serves on");
        source.beat(&app).await.ok();
        // It is rolled back by a revocation, for good.
        revoke(&app, &id).await.ok();
        assert_eq!(told(&target.register(&app).await), (Some("superseded"), Some("exit")));
        assert_eq!(told(&passport.register(&app).await), (Some("superseded"), Some("exit")));
        assert_eq!(source.register(&app).await.ok()["generation"], 1);
    }

    async fn e2e_01_from_a_create_to_online(app: TestApp) {
        let id = unclaimed(&app).await;
        let first = Agent::with(&id, None).register(&app).await.ok();
        Agent::with(&id, token(&first)).beat(&app).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "online");
    }

    async fn e2e_02_rg_08_after_a_revocation_the_old_bearer_registers_anew(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        revoke(&app, &id).await.is(200, &json!({"status": "revoked", "workspace_id": id}));
        let again = agent.register(&app).await.ok();
        assert_eq!((&again["generation"], token(&again).is_some()), (&json!(1), true), "its own generation");
        let fresh = Agent::with(&id, token(&again));
        agent.beat(&app).await.refuses(401, "invalid workspace auth token");
        fresh.beat(&app).await.ok();
        assert_eq!(told(&agent.beat(&app).await), (Some("superseded"), Some("reread-credential")));
        app.settle().await;
        assert_eq!(app.fake.starts(), 1, "a healthy agent is not replaced");
    }

    async fn e2e_03_rg_09_without_a_revocation_nobody_else_gets_in(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        for hours in 0..3 {
            let nothing = Agent::with(&id, None).register(&app).await;
            nothing.is(401, &json!({"error": "missing workspace auth token"}));
            let stale = Agent::with(&id, Some("stale")).register(&app).await;
            stale.is(401, &json!({"error": "invalid workspace auth token"}));
            app.app.clock.advance(Duration::from_secs(3600 * hours));
        }
    }

    async fn after_a_revocation_its_former_holder_waits_two_minutes_for_others(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        revoke(&app, &id).await.ok();
        for _ in 0..12 {
            let beat = agent.beat(&app).await;
            assert_eq!(told(&beat), (Some("revoked"), Some("wait")));
            assert_eq!((&beat.body["retry_after"], &beat.headers["retry-after"]), (&json!(5), &"5".parse().unwrap()));
            app.later(9).await;
        }
        assert_eq!(app.fake.starts(), 1, "it was heard all the time");
        app.later(12).await;
        assert_eq!(told(&agent.beat(&app).await), (Some("revoked"), Some("register")));
        agent.register(&app).await.ok();
    }

    async fn a_migrators_target_comes_before_the_former_holder(app: TestApp) {
        let (id, source) = online(&app, "a").await;
        revoke(&app, &id).await.ok();
        assert_eq!(told(&source.beat(&app).await).1, Some("wait"));
        let url = json!({"url": "http://localhost:7777"});
        let target = Agent::with(&id, None).register_with(&app, url, &[]).await.ok();
        assert_eq!((&target["generation"], app.workspace(&id).await["url"].as_str()), (&json!(2), Some("http://localhost:7777")));
        // It is what its backend has, and its end would be taken for the workspace's.
        assert_eq!(told(&source.beat(&app).await), (Some("revoked"), Some("wait")));
    }

    async fn a_sealed_workspace_is_opened_for_one_registration_and_a_quarter_of_an_hour(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        revoke(&app, &id).await.ok();
        let first = Agent::with(&id, None).register(&app).await.ok();
        assert_eq!(first["generation"], 2);
        // Until it lapses, what that brought keeps everybody else out; nobody used it, so the door is still open.
        app.app.clock.advance(Duration::from_secs(599));
        Agent::with(&id, None).register(&app).await.is(401, &json!({"error": "missing workspace auth token"}));
        app.app.clock.advance(Duration::from_secs(2));
        let second = Agent::with(&id, None).register(&app).await.ok();
        assert_eq!((first["auth_token"].is_string(), &second["generation"]), (true, &json!(3)));
        assert_eq!(told(&agent.register(&app).await).1, Some("wait"), "it is what its backend has");
        revoke(&app, &id).await.ok();
        app.app.clock.advance(Duration::from_secs(901));
        Agent::with(&id, None).register(&app).await.is(401, &json!({"error": "missing workspace auth token"}));
        let late = Agent::with(&id, token(&second)).register(&app).await;
        assert_eq!(told(&late).1, Some("wait"), "sealed: its backend replaces it");
    }

    async fn an_administrator_decides_whether_a_workspace_is_sealed(app: TestApp) {
        let id = unclaimed(&app).await;
        let path = format!("/workspaces/{id}");
        let patch = async |text: &str| app.call("PATCH", &path, Some(crate::support::ADMIN), Some(json!({"bootstrap": text}))).await;
        patch("sealed").await.ok();
        Agent::with(&id, None).register(&app).await.refuses(401, "missing workspace auth token");
        patch("ajar").await.refuses(400, "invalid request body");
        patch("open").await.ok();
        let first = Agent::with(&id, None).register(&app).await.ok();
        let own = app.call("PATCH", &path, token(&first), Some(json!({"bootstrap": "open"}))).await;
        own.refuses(403, "admin auth required");
    }

    async fn a_start_in_flight_survives_a_revocation(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let next = Agent::of(&app, &id);
        revoke(&app, &id).await.ok();
        // Delivered and revoked before it was ever used: it is enrolled in the generation it was started for.
        let enrolled = next.register(&app).await.ok();
        assert_eq!((&enrolled["generation"], token(&enrolled).is_some()), (&json!(2), true));
        assert_eq!(told(&agent.register(&app).await), (Some("superseded"), Some("exit")));
        Agent::with(&id, token(&enrolled)).beat(&app).await.ok();
        app.settle().await;
        assert_eq!(app.fake.starts(), 2);
    }

    async fn a_key_counts_with_22_characters_and_only_its_hash_is_kept(app: TestApp) {
        for (key, again) in [("a-key-of-21-character", false), ("a-key-of-22-characters", true)] {
            let id = unclaimed(&app).await;
            let headers = [("idempotency-key", key)];
            let lost = Agent::with(&id, None).register_with(&app, json!({}), &headers).await.ok();
            // What it holds is not valid, or it would not need another.
            let stale = Agent::with(&id, Some("stale")).register_with(&app, json!({}), &headers).await;
            assert_eq!(stale.status == 200, again, "{stale:?}");
            // Who presents what it got needs none.
            if !again {
                let holder = Agent::with(&id, token(&lost));
                let kept = holder.register_with(&app, json!({}), &headers).await.ok();
                assert_eq!(token(&kept), None);
            }
            // After a revocation the key is worth nothing by itself: the door is.
            revoke(&app, &id).await.ok();
            let anew = Agent::with(&id, None).register_with(&app, json!({}), &headers).await.ok();
            assert_eq!(anew["generation"], 2, "a bootstrap, not a repeated answer");
        }
    }

    async fn rv_01_02_a_revocation_ends_every_kind_and_nothing_to_end_is_success(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "a"})).await.ok();
        let (id, api) = (created["id"].as_str().unwrap().to_owned(), created["auth_token"].clone());
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register(&app).await.ok();
        let passport = passport(&app, &id, 1).await;
        let why = format!("/workspaces/{id}/why");
        for _ in 0..2 {
            revoke(&app, &id).await.is(200, &json!({"status": "revoked", "workspace_id": id}));
        }
        app.call("GET", &why, api.as_str(), None).await.refuses(401, "invalid workspace auth token");
        app.call("GET", &why, agent.token.as_deref(), None).await.refuses(401, "invalid workspace auth token");
        assert!(app.journal(&id).await.contains(&"revoked".to_owned()));
        // The passport is of the generation that counts: it is proof of having been its instance.
        assert_eq!(passport.register(&app).await.ok()["generation"], 1);
        revoke(&app, UNKNOWN).await.is(200, &json!({"status": "revoked", "workspace_id": UNKNOWN}));
        app.delete(&format!("/workspaces/{id}")).await.ok();
        revoke(&app, &id).await.is(200, &json!({"status": "revoked", "workspace_id": id}));
        assert_eq!(told(&agent.register(&app).await), (Some("revoked"), Some("exit")), "removed stays removed");
        for token in [None, api.as_str()] {
            let path = format!("/admin/workspaces/{id}/revoke-auth-tokens");
            assert_eq!(app.call("POST", &path, token, None).await.status, 401);
        }
    }

    async fn an_opened_door_closes_with_the_first_use_of_what_came_through_it(app: TestApp) {
        let (id, _) = online(&app, "a").await;
        revoke(&app, &id).await.ok();
        // A copy of it came late, and nobody hears the answer. While it may be used nobody else comes in.
        let nobody = Agent::with(&id, None);
        nobody.register(&app).await.ok();
        nobody.register(&app).await.refuses(401, "missing workspace auth token");
        app.app.clock.advance(std::time::Duration::from_secs(601));
        let answer = nobody.register(&app).await.ok();
        Agent::with(&id, token(&answer)).beat(&app).await.ok();
        app.sql("UPDATE credentials SET state = 'lapsed', ended_at = 1").await;
        nobody.register(&app).await.refuses(401, "missing workspace auth token");
    }

    async fn rv_03_an_empty_id_is_400(app: TestApp) {
        app.post("/admin/workspaces//revoke-auth-tokens", json!({})).await.refuses(400, "workspace id required");
        let none = app.call("POST", "/admin/workspaces//revoke-auth-tokens", None, None).await;
        none.refuses(401, "admin auth required");
        revoke(&app, "not-a-uuid").await.refuses(400, "invalid workspace ID");
    }

    async fn rv_04_a_failing_database_is_500_and_revokes_nothing(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.sql("ALTER TABLE passports RENAME TO elsewhere").await;
        revoke(&app, &id).await.is(500, &json!({"error": "revoke failed"}));
        app.sql("ALTER TABLE elsewhere RENAME TO passports").await;
        agent.beat(&app).await.ok();
    }

    async fn rg_10_a_failing_database_is_503_and_never_an_open_door(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        app.sql("DROP TABLE passports").await;
        for agent in [&Agent::with(&id, None), &Agent::with(&id, Some("stale"))] {
            let answer = agent.register(&app).await;
            answer.refuses(503, "platform datastore unavailable — retry shortly");
        }
        app.sql("DROP TABLE credentials").await;
        agent.beat(&app).await.refuses(503, "platform datastore unavailable — retry shortly");
    }

    async fn rg_11_wt_18_a_callers_credential_does_not_close_the_bootstrap(app: TestApp) {
        let id = unclaimed(&app).await;
        let mut work = Work::begin(&app.app).await.unwrap();
        let api = access::mint(&app.app, &mut work, id.parse().unwrap(), access::For::Caller(None)).await.unwrap();
        work.commit().await.unwrap();
        let first = Agent::with(&id, None).register(&app).await.ok();
        assert!(token(&first).is_some());
        // And it serves an external workspace itself, without a credential of its own for it.
        let operator = Agent::with(&id, Some(api.reveal()));
        let served = operator.register(&app).await.ok();
        assert_eq!((token(&served), &served["generation"]), (None, &json!(1)));
        operator.beat(&app).await.ok();
        // Of a managed workspace it is nobody's.
        let created = app.post("/workspaces", json!({"name": "m"})).await.ok();
        app.settle().await;
        let caller = Agent::with(created["id"].as_str().unwrap(), created["auth_token"].as_str());
        caller.register(&app).await.is(401, &json!({"error": "invalid workspace auth token"}));
    }

    async fn wt_17_replacing_an_external_credential_leaves_callers_alone(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "out", "external": true})).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        let mut work = Work::begin(&app.app).await.unwrap();
        let api = access::mint(&app.app, &mut work, id.parse().unwrap(), access::For::Caller(None)).await.unwrap();
        work.commit().await.unwrap();
        let agent = Agent::with(&id, created["connection"]["auth_token"].as_str());
        agent.register(&app).await.ok();
        let path = format!("/workspaces/{id}/external/rotate");
        let rotated = app.call("POST", &path, Some(api.reveal()), None).await.ok();
        assert_eq!(rotated["connection"]["auth_token"], rotated["auth_token"]);
        assert_eq!(app.workspace(&id).await["status"], "awaiting_agent");
        // The old one is told to look for what its operator delivers, and never to end.
        assert_eq!(told(&agent.beat(&app).await), (Some("revoked"), Some("register")));
        assert_eq!(told(&agent.register(&app).await), (Some("revoked"), Some("register")));
        Agent::with(&id, token(&rotated)).register(&app).await.ok();
        assert_eq!(app.workspace(&id).await["status"], "online");
        assert_eq!(told(&agent.beat(&app).await), (Some("superseded"), Some("reread-credential")));
        let (managed, _) = online(&app, "m").await;
        let path = format!("/workspaces/{managed}/external/rotate");
        app.post(&path, json!({})).await.refuses(400, "workspace is not external");
        app.call("POST", &path, Some("stranger"), None).await.refuses(401, "invalid workspace auth token");
    }

    async fn an_external_agent_that_lost_everything_stands_with_cause_and_cure(app: TestApp) {
        let created = app.post("/workspaces", json!({"name": "out", "external": true})).await.ok();
        let id = created["id"].as_str().unwrap().to_owned();
        Agent::with(&id, created["connection"]["auth_token"].as_str()).register(&app).await.ok();
        app.later(10).await;
        Agent::with(&id, None).register(&app).await.refuses(401, "missing workspace auth token");
        let at = app.app.clock.now().to_string();
        assert_eq!(app.workspace(&id).await["status"], "online", "a stranger changes nothing");
        app.later(120).await;
        let workspace = app.workspace(&id).await;
        assert_eq!(workspace["status"], "awaiting_agent");
        let says = |text: &Value| {
            let text = text.as_str().unwrap_or_default().to_owned();
            ["was refused", "no credential was presented", "external/rotate", "revoke-auth-tokens", &at]
                .iter().all(|part| text.contains(part))
        };
        assert!(says(&workspace["evidence"]), "{workspace}");
        let why = app.get(&format!("/workspaces/{id}/why")).await.ok();
        assert!(says(&why["next"]), "{why}");
        // The next refusal is named with its own time.
        app.later(30).await;
        Agent::with(&id, Some("stale")).register(&app).await.refuses(401, "invalid workspace auth token");
        let error = app.workspace(&id).await["last_error"].clone();
        assert!(error.as_str().unwrap().contains("never issued here"), "{error}");
    }

    async fn e2e_08_a_delete_wins_over_a_heartbeat_in_flight(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let path = format!("/workspaces/{id}");
        let beats = async {
            for _ in 0..8 {
                agent.beat(&app).await;
            }
        };
        let (deleted, ()) = tokio::join!(app.delete(&path), beats);
        deleted.ok();
        assert_eq!(told(&agent.beat(&app).await), (Some("revoked"), Some("exit")));
        assert_eq!(app.workspace(&id).await["status"], "removed");
    }

    async fn e2e_09_a_fresh_credential_of_a_long_idle_workspace_survives_every_pass(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        for _ in 0..20 {
            app.app.clock.advance(Duration::from_secs(25));
            agent.beat(&app).await.ok();
        }
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        for _ in 0..20 {
            app.later(20).await;
        }
        Agent::of(&app, &id).register(&app).await.ok();
    }
}

/// What a stranger is answered, at workspaces that differ in everything.
#[test]
fn strangers_learn_nothing_from_any_answer() {
    on_each("strangers", |db| async move {
        let app = TestApp::new(db, |_| {});
        let (sealed, _) = online(&app, "sealed").await;
        let external = unclaimed(&app).await;
        Agent::with(&external, None).register(&app).await.ok();
        let (removed, _) = online(&app, "removed").await;
        app.delete(&format!("/workspaces/{removed}")).await.ok();
        let (purged, _) = online(&app, "purged").await;
        app.delete(&format!("/workspaces/{purged}?purge=true")).await.ok();
        for bearer in [None, Some("never-issued")] {
            let mut answers = Vec::new();
            for id in [UNKNOWN, &sealed, &external, &removed, &purged] {
                let knock = Agent::with(id, bearer);
                for mut answer in [knock.register(&app).await, knock.beat(&app).await] {
                    // What is left for this address says how often it asked, and nothing else.
                    assert!(answer.headers.remove("x-ratelimit-remaining").is_some());
                    answers.push((answer.status, answer.text, format!("{:?}", answer.headers)));
                }
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{answers:?}");
        }
    });
}

/// With the contract's open doors.
fn compat(name: &str, body: impl AsyncFn(TestApp)) {
    on_each(name, |db| body(TestApp::new(db, |config| config.auth = Auth::Compat)));
}

#[test]
fn hb_17_uc_01_compat_answers_for_unknown_and_removed_ones_and_changes_nothing() {
    compat("hb17", async |app| {
        let (removed, agent) = online(&app, "a").await;
        app.delete(&format!("/workspaces/{removed}")).await.ok();
        let before = app.workspace(&removed).await;
        for id in [UNKNOWN, &removed] {
            for bearer in [None, agent.token.as_deref()] {
                Agent::with(id, bearer).beat(&app).await.is(200, &json!({"status": "ok"}));
                let body = json!({"workspace_id": id, "agent_card": {"name": "x"}});
                let card = app.call("POST", "/registry/update-card", bearer, Some(body)).await;
                card.is(200, &json!({"status": "updated"}));
            }
        }
        agent.register(&app).await.is(200, &json!({"status": "registered"}));
        assert_eq!(app.workspace(&removed).await, before);
        // An unknown id creates itself.
        assert!(token(&Agent::with(UNKNOWN, None).register(&app).await.ok()).is_some());
    });
}

#[test]
fn compat_lets_in_where_nothing_is_live_and_nowhere_else() {
    compat("open", async |app| {
        let (id, old) = online(&app, "a").await;
        app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
        app.settle().await;
        let agent = Agent::of(&app, &id);
        agent.register(&app).await.ok();
        old.register(&app).await.refuses(401, "invalid workspace auth token");
        Agent::with(&id, None).beat(&app).await.refuses(401, "missing workspace auth token");
        revoke(&app, &id).await.ok();
        Agent::with(&id, None).beat_with(&app, json!({"current_task": "x"})).await.ok();
        assert_eq!(app.get("/workspaces").await.ok()[0]["current_task"], "x", "let through");
        // Also whom a newer one replaced; it opens the next generation.
        let again = old.register(&app).await.ok();
        assert_eq!((&again["generation"], token(&again).is_some()), (&json!(3), true));
        assert_eq!(app.workspace(&id).await["generation"], 3);
    });
}

#[test]
fn compat_answers_a_failing_database_as_the_contract_does() {
    compat("failing", async |app| {
        let (_, agent) = online(&app, "a").await;
        app.sql("DROP TABLE credentials").await;
        agent.register(&app).await.is(500, &json!({"error": "registration failed"}));
        agent.beat(&app).await.is(500, &json!({"error": "failed to update"}));
    });
}
