//! Watchers: who may watch what, for how long, and what they are told when they are too slow.

use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::agent::online;
use crate::support::modes::{adjusted, compat};
use crate::support::{ADMIN, TestApp, a_moment, both};

type Socket = WebSocketStream<TcpStream>;

async fn dial(
    app: &TestApp,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let address = app.listen().await;
    let mut request = format!("ws://{address}/ws{query}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// Watch by a token.
async fn watch(app: &TestApp, query: &str, token: &str) -> Socket {
    dial(app, query, &[("authorization", &format!("Bearer {token}"))]).await.unwrap()
}

/// The next event, or how it ended.
async fn heard(socket: &mut Socket) -> Result<Value, Option<CloseCode>> {
    loop {
        match socket.next().await.ok_or(None)?.map_err(|_| None)? {
            Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => return Err(frame.map(|frame| frame.code)),
            _ => {}
        }
    }
}

async fn event(socket: &mut Socket) -> String {
    heard(socket).await.unwrap()["event"].as_str().unwrap().to_owned()
}

/// The names of the workspaces about which something is heard until `last` is among them.
async fn until(socket: &mut Socket, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != last) {
        let said = heard(socket).await.unwrap();
        let name = said["payload"]["name"].as_str();
        names.extend(name.map(str::to_owned));
    }
    names
}

async fn below(app: &TestApp, name: &str, parent: &str) -> String {
    let made = app.post("/workspaces", json!({"name": name, "parent_id": parent})).await.ok();
    app.settle().await;
    made["id"].as_str().unwrap().to_owned()
}

/// A workspace about which something is heard. Gives its id.
async fn made(app: &TestApp, name: &str) -> String {
    let id = app.create(name).await;
    app.settle().await;
    id
}

/// Read a stream of server-sent events until it says `what`; everything, if it ends before.
async fn read(body: &mut axum::body::BodyDataStream, what: &str) -> String {
    let mut text = String::new();
    while !text.contains(what) {
        let Some(chunk) = body.next().await else { return text };
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    text
}

async fn stream(app: &TestApp, path: &str, token: &str) -> axum::body::BodyDataStream {
    let request = Request::get(path).header("authorization", format!("Bearer {token}"));
    let response = app.response(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

both! {
    async fn a_canvas_sees_everything_and_resumes_without_a_gap(app: TestApp) {
        let mut socket = watch(&app, "", ADMIN).await;
        let (id, _) = online(&app, "a").await;
        let first = heard(&mut socket).await.unwrap();
        assert_eq!((&first["event"], &first["workspace_id"], &first["payload"]["name"]),
            (&json!("WORKSPACE_PROVISIONING"), &json!(id), &json!("a")));
        assert!(first["timestamp"].is_string() && first["seq"].is_i64());
        assert_eq!(event(&mut socket).await, "WORKSPACE_ONLINE");
        socket.close(None).await.unwrap();
        let query = format!("?after={}", first["seq"]);
        let mut again = watch(&app, &query, ADMIN).await;
        let open = heard(&mut again).await.unwrap();
        assert_eq!((&open["event"], &open["payload"]["after"]), (&json!("STREAM_OPEN"), &first["seq"]));
        assert_eq!(event(&mut again).await, "WORKSPACE_ONLINE");
        let mut lost = watch(&app, "?after=99999", ADMIN).await;
        assert_eq!([event(&mut lost).await, event(&mut lost).await], ["STREAM_OPEN", "STREAM_GAP"]);
        assert!(dial(&app, "?after=x", &[("authorization", &format!("Bearer {ADMIN}"))]).await.is_err());
        let metrics = app.call("GET", "/metrics", None, None).await;
        assert!(metrics.text.contains("molecule_websocket_connections_active 2"), "{}", metrics.text);
    }

    async fn nobody_watches_without_a_credential(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let (other, _) = online(&app, "b").await;
        let own = agent.token.unwrap();
        let ask = |token: Option<&'static str>, claim: Option<String>| { let app = &app; async move {
            let claim: Vec<(&str, &str)> = claim.iter().map(|id| ("x-workspace-id", id.as_str())).collect();
            app.send("GET", "/ws", token, None, &claim).await } };
        ask(None, None).await.refuses(401, "admin auth required");
        ask(Some("x"), None).await.refuses(401, "invalid admin auth token");
        ask(None, Some(id.clone())).await.refuses(401, "missing workspace auth token");
        ask(Some("x"), Some(id.clone())).await.refuses(401, "invalid workspace auth token");
        ask(Some("x"), Some("nobody".to_owned())).await.refuses(401, "invalid workspace auth token");
        ask(Some(ADMIN), None).await.refuses(400, "expected a WebSocket upgrade");
        let claims = [("x-workspace-id", other.as_str())];
        app.send("GET", "/ws", Some(&own), None, &claims).await.refuses(401, "invalid workspace auth token");
        // A page in a browser names protocols: its token in one, and one to be chosen.
        let names = format!("ligand, ligand.bearer.{}", URL_SAFE_NO_PAD.encode(ADMIN));
        let mut socket = dial(&app, "", &[("sec-websocket-protocol", &names), ("origin", "https://page.example")]).await.unwrap();
        assert_eq!(event(&mut socket).await, "STREAM_OPEN");
        app.app.db.close().await;
        assert_eq!(app.send("GET", "/ws", Some(&own), None, &[]).await.status, 503);
    }

    async fn a_workspace_sees_its_family_as_it_is_now(app: TestApp) {
        let (root, _) = online(&app, "root").await;
        let (me, agent) = online(&app, "me").await;
        app.call("PATCH", &format!("/workspaces/{me}"), Some(ADMIN), Some(json!({"parent_id": root}))).await.ok();
        let mut socket = watch(&app, "", agent.token.as_deref().unwrap()).await;
        let (stranger, _) = online(&app, "stranger").await;
        below(&app, "nephew", &stranger).await;
        let sibling = below(&app, "sibling", &root).await;
        below(&app, "cousin", &sibling).await;
        below(&app, "child", &me).await;
        assert_eq!(until(&mut socket, "child").await, ["sibling", "child"]);
        // Moved, it is another family's.
        app.call("PATCH", &format!("/workspaces/{me}"), Some(ADMIN), Some(json!({"parent_id": stranger}))).await.ok();
        below(&app, "other", &root).await;
        below(&app, "kin", &stranger).await;
        assert_eq!(until(&mut socket, "kin").await, ["kin"]);
        // What is not kept is for the family, too.
        let at = app.app.clock.now();
        app.app.hub.broadcast("AGENT_MESSAGE", sibling.parse().unwrap(), at, json!({}));
        app.app.hub.broadcast("AGENT_MESSAGE", stranger.parse().unwrap(), at, json!({}));
        assert_eq!(heard(&mut socket).await.unwrap()["workspace_id"], json!(stranger));
        // From a cursor it is the same.
        let mut again = watch(&app, "?after=0", agent.token.as_deref().unwrap()).await;
        assert_eq!(event(&mut again).await, "STREAM_OPEN");
        let all = until(&mut again, "kin").await;
        assert!(all.contains(&"me".to_owned()) && !all.contains(&"sibling".to_owned()), "{all:?}");
    }

    async fn a_credential_that_ends_takes_its_watchers_along(app: TestApp) {
        let (id, agent) = online(&app, "a").await;
        let own = agent.token.unwrap();
        let mut socket = watch(&app, "", &own).await;
        let mut events = stream(&app, &format!("/workspaces/{id}/events/stream"), &own).await;
        read(&mut events, "ping").await;
        let org = app.post("/org/tokens", json!({"name": "x"})).await.ok();
        let mut canvas = watch(&app, "", org["auth_token"].as_str().unwrap()).await;
        let mut admin = watch(&app, "", ADMIN).await;
        app.ask(&format!("/admin/workspaces/{id}/revoke-auth-tokens")).await;
        // Everything that is committed from here on is later than the revocation.
        made(&app, "later").await;
        loop {
            match heard(&mut socket).await {
                Ok(said) => assert_ne!(said["payload"]["name"], "later"),
                Err(code) => break assert_eq!(code, Some(CloseCode::Policy)),
            }
        }
        let rest = read(&mut events, "has ended").await;
        assert!(rest.contains("has ended") && events.next().await.is_none(), "{rest}");
        app.delete(&format!("/org/tokens/{}", org["id"].as_str().unwrap())).await.ok();
        while let Ok(said) = heard(&mut canvas).await {
            assert_ne!(said["event"], "STREAM_GAP");
        }
        assert!(dial(&app, "", &[("authorization", &format!("Bearer {own}"))]).await.is_err());
        made(&app, "last").await;
        until(&mut admin, "last").await;
    }

    async fn watchers_are_told_when_the_server_stops(app: TestApp) {
        let mut socket = watch(&app, "", ADMIN).await;
        let mut events = stream(&app, "/events/stream", ADMIN).await;
        socket.send(Message::Text("a watcher has nothing to say".into())).await.unwrap();
        app.app.stop.cancel();
        assert_eq!(heard(&mut socket).await, Err(Some(CloseCode::Away)));
        assert!(read(&mut events, "nothing").await.contains("the server stops"));
    }

    async fn whoever_is_too_slow_is_told_what_it_missed_and_gets_what_is_kept(app: TestApp) {
        let mut events = stream(&app, "/events/stream", ADMIN).await;
        read(&mut events, "ping").await;
        let id = made(&app, "a").await;
        read(&mut events, "WORKSPACE_PROVISIONING").await;
        let at = app.app.clock.now();
        for _ in 0..40 {
            for _ in 0..500 {
                app.app.hub.broadcast("TASK_UPDATED", id.parse().unwrap(), at, json!({}));
            }
            a_moment(5).await;
        }
        made(&app, "b").await;
        a_moment(50).await;
        let rest = read(&mut events, "WORKSPACE_PROVISIONING").await;
        let gap = rest.find("STREAM_GAP").expect("it is told");
        assert!(rest[gap..].contains("not kept"), "{rest}");
        // What it was told of may have been noticed in two looks.
        made(&app, "c").await;
        read(&mut events, r#""name":"c""#).await;
        made(&app, "d").await;
        let rest = read(&mut events, r#""name":"d""#).await;
        assert!(!rest.contains("STREAM_GAP"), "it goes on where it was: {rest}");
    }

    async fn one_read_serves_all_who_watch(app: TestApp) {
        let mut all = Vec::new();
        for _ in 0..20 {
            let mut events = stream(&app, "/events/stream", ADMIN).await;
            read(&mut events, "ping").await;
            all.push(events);
        }
        for n in 0..5 {
            made(&app, &format!("w{n}")).await;
        }
        for events in &mut all {
            let text = read(events, r#""name":"w4""#).await;
            let seqs: Vec<i64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
            assert_eq!(text.matches("data: ").count(), 5, "{text}");
            assert!(seqs.is_sorted(), "{seqs:?}");
        }
    }
}

adjusted! {
    |config| config.edge.cors_origins = vec!["https://canvas.example".to_owned()];

    async fn pages_of_other_sites_do_not_watch(app: TestApp) {
        let from = |origin: &'static str| { let app = &app; async move {
            app.send("GET", "/ws", Some(ADMIN), None, &[("origin", origin), ("host", "here")]).await } };
        from("https://evil.example").await.refuses(403, "origin not allowed");
        from("https://canvas.example").await.refuses(400, "expected a WebSocket upgrade");
        from("https://here").await.refuses(400, "expected a WebSocket upgrade");
        app.send("GET", "/ws", Some(ADMIN), None, &[]).await.refuses(400, "expected a WebSocket upgrade");
    }
}

adjusted! {
    compat;

    async fn compat_lets_a_canvas_watch_and_believes_a_workspace_without_tokens(app: TestApp) {
        let made = app.call("POST", "/workspaces", None, Some(json!({"name": "a"}))).await.ok();
        app.settle().await;
        let id = made["id"].as_str().unwrap().to_owned();
        let mut socket = dial(&app, "?after=0", &[]).await.unwrap();
        assert_eq!([event(&mut socket).await, event(&mut socket).await], ["STREAM_OPEN", "WORKSPACE_PROVISIONING"]);
        let claim = |id: String| { let app = &app; async move {
            app.send("GET", "/ws", None, None, &[("x-workspace-id", id.as_str())]).await } };
        claim("00000000-0000-4000-8000-000000000000".to_owned()).await.refuses(400, "expected a WebSocket upgrade");
        claim(id.clone()).await.refuses(401, "missing workspace auth token");
        let evil = [("origin", "https://evil.example")];
        app.send("GET", "/ws", None, None, &evil).await.refuses(403, "origin not allowed");
        app.app.db.close().await;
        claim(id).await.refuses(500, "auth check failed");
    }
}

#[cfg(feature = "mutants")]
#[test]
fn a_stream_without_numbers_begins_with_what_comes_next() {
    use ligand_domain::guards::{Guard, Guards};

    crate::support::engine::on_each("without_numbers", |db| async {
        let without = Guards::without(Guard::StreamSequence);
        let app = TestApp::new(db, |config| config.guards = without);
        made(&app, "missed").await;
        let mut events = stream(&app, "/events/stream?after=0", ADMIN).await;
        read(&mut events, "ping").await;
        made(&app, "seen").await;
        let text = read(&mut events, "seen").await;
        assert!(!text.contains("missed"), "{text}");
    });
}
