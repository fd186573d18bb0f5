//! What agents are told after a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use ligand_server::briefings::BriefingReconciler;
use ligand_server::reconcile::Reconciler as _;
use serde_json::{Value, json};

use crate::support::agent::{Agent, online};
use crate::support::{TestApp, a_moment, both};

type Heard = Arc<Mutex<Vec<Value>>>;

/// An agent on a real socket that hears what it is told.
async fn listening(app: &TestApp) -> Heard {
    let heard = Heard::default();
    let noted = Arc::clone(&heard);
    let handler = move |body: String| {
        let said: Value = serde_json::from_str(&body).unwrap();
        // That it is about to end is told as well, and no briefing.
        if said["method"] != "signals/restart_pending" {
            noted.lock().unwrap().push(said);
        }
        async { "{}" }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
    app.fake.report_address(Some(url));
    heard
}

/// Let agents be told, and give how many passes found somebody.
async fn brief(app: &TestApp) -> u64 {
    let steps = BriefingReconciler.pass(&app.app).await.unwrap().steps;
    for _ in 0..100 {
        if app.app.tasks.is_empty() {
            break;
        }
        a_moment(10).await;
    }
    steps
}

async fn restart(app: &TestApp, id: &str) {
    app.post(&format!("/workspaces/{id}/restart"), json!({})).await.ok();
    app.settle().await;
}

async fn register(app: &TestApp, id: &str) {
    Agent::of(app, id).register(app).await.ok();
    app.settle().await;
}

fn text(message: &Value) -> &str {
    message["params"]["message"]["parts"][0]["text"].as_str().unwrap()
}

both! {
    async fn rc_04_an_agent_is_told_once_when_it_is_online_again(app: TestApp) {
        let heard = listening(&app).await;
        let (id, _) = online(&app, "a").await;
        assert_eq!(brief(&app).await, 0, "a first start is no restart");
        app.app.clock.advance(Duration::from_secs(45));
        restart(&app, &id).await;
        assert_eq!(brief(&app).await, 0, "its agent did not register yet");
        app.app.clock.advance(Duration::from_secs(300));
        register(&app, &id).await;
        assert_eq!((brief(&app).await, brief(&app).await), (1, 0));
        let told = heard.lock().unwrap().clone();
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((&told["jsonrpc"], &told["method"]), (&json!("2.0"), &json!("message/send")));
        let message = &told["params"]["message"];
        assert!(message["messageId"].as_str().unwrap().len() == 36 && told["id"].is_string());
        assert_eq!(message["role"], "user");
        assert_eq!(message["parts"].as_array().unwrap().len(), 1);
        assert_eq!(message["parts"][0]["kind"], "text");
        let metadata = json!({"source": "platform", "kind": "restart_context", "layer": 1, "restart_context": true});
        assert_eq!(message["metadata"], metadata);
        assert!(text(told).contains("(45s before)"), "{told}");
    }

    async fn a_replacement_is_told_too_and_survives_a_server(app: TestApp) {
        let heard = listening(&app).await;
        let (id, _) = online(&app, "a").await;
        app.fake.kill(app.fake.newest(id.parse().unwrap()).unwrap().key, 9);
        app.settle().await;
        let app = app.reborn();
        register(&app, &id).await;
        assert_eq!(brief(&app).await, 1);
        assert_eq!(heard.lock().unwrap().len(), 1);
    }

    async fn rc_02_without_a_session_before_it_is_said(app: TestApp) {
        let heard = listening(&app).await;
        let id = app.create("a").await;
        app.settle().await;
        // Nobody ever registered, and somebody asks for a restart.
        restart(&app, &id).await;
        app.later(601).await;
        register(&app, &id).await;
        assert_eq!(brief(&app).await, 1);
        assert!(text(&heard.lock().unwrap()[0]).contains("no prior session"));
    }

    async fn too_late_is_not_at_all(app: TestApp) {
        let heard = listening(&app).await;
        let (id, _) = online(&app, "a").await;
        restart(&app, &id).await;
        register(&app, &id).await;
        app.app.clock.advance(Duration::from_secs(61));
        assert_eq!(brief(&app).await, 0);
        assert_eq!(BriefingReconciler.next_due(&app.app).await.unwrap(), None, "it is forgotten");
        assert!(heard.lock().unwrap().is_empty());
    }

    async fn an_agent_that_cannot_be_reached_is_left_in_peace(app: TestApp) {
        app.fake.report_address(Some("http://127.0.0.1:1".to_owned()));
        let (id, _) = online(&app, "a").await;
        restart(&app, &id).await;
        register(&app, &id).await;
        assert_eq!((brief(&app).await, brief(&app).await), (1, 0));
        assert_eq!(app.workspace(&id).await["status"], "online");
    }
}
