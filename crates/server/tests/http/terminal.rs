//! Shells over WebSockets.

use std::sync::atomic::Ordering;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::agent::{online, unclaimed};
use crate::support::house::housed;
use crate::support::modes::{adjusted, compat, development};
use crate::support::{ADMIN, TestApp, a_moment, both};

type Socket = WebSocketStream<TcpStream>;

async fn open(
    app: &TestApp,
    id: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let address = app.listen().await;
    let url = format!("ws://{address}/workspaces/{id}/terminal?cols=100&rows=30");
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

fn admin() -> (&'static str, String) {
    ("authorization", format!("Bearer {ADMIN}"))
}

async fn heard(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(bytes) => return Some(bytes.to_vec()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

async fn ends(ended: &std::sync::atomic::AtomicBool) {
    for _ in 0..500 {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        a_moment(10).await;
    }
    panic!("the shell goes on");
}

both! {
    async fn a_shell_hears_what_is_typed_and_ends_with_its_connection(app: TestApp) {
        let (app, house) = housed(app);
        let (id, _) = online(&app, "a").await;
        let (name, value) = admin();
        let mut socket = open(&app, &id, &[(name, &value)]).await.unwrap();
        assert_eq!(heard(&mut socket).await.unwrap(), b"100x30");
        socket.send(Message::Text("ls\r".into())).await.unwrap();
        assert_eq!(heard(&mut socket).await.unwrap(), b"ls\r");
        socket.send(Message::Binary(b"\x03".to_vec().into())).await.unwrap();
        assert_eq!(heard(&mut socket).await.unwrap(), b"\x03");
        socket.send(Message::Text(r#"{"type":"resize","cols":120,"rows":40}"#.into())).await.unwrap();
        assert_eq!(heard(&mut socket).await.unwrap(), b"120x40");
        assert!(!house.ended.load(Ordering::SeqCst));
        socket.close(None).await.unwrap();
        ends(&house.ended).await;
    }

    async fn a_shell_that_ends_closes_its_connection(app: TestApp) {
        let (app, house) = housed(app);
        let (id, agent) = online(&app, "a").await;
        let own = format!("Bearer {}", agent.token.unwrap());
        let mut socket = open(&app, &id, &[("authorization", &own)]).await.unwrap();
        heard(&mut socket).await.unwrap();
        socket.send(Message::Text("exit".into())).await.unwrap();
        assert_eq!(heard(&mut socket).await, None);
        ends(&house.ended).await;
        let mut socket = open(&app, &id, &[("authorization", &own)]).await.unwrap();
        heard(&mut socket).await.unwrap();
        house.ended.store(false, Ordering::SeqCst);
        let large = vec![b'x'; (64 << 10) + 1];
        socket.send(Message::Binary(large.into())).await.unwrap();
        assert_eq!(heard(&mut socket).await, None, "a message that is too large ends it");
        ends(&house.ended).await;
    }

    async fn terminals_are_of_what_runs_and_for_its_family(app: TestApp) {
        let (app, _) = housed(app);
        let (id, agent) = online(&app, "a").await;
        let child = app.post("/workspaces", json!({"name": "b", "parent_id": id})).await.ok();
        let (other, _) = online(&app, "c").await;
        let below = app.post("/workspaces", json!({"name": "d", "parent_id": other})).await.ok();
        let path = format!("/workspaces/{id}/terminal");
        let claim = |token: String, claimed: String| { let (app, path) = (&app, &path); async move {
            app.send("GET", path, Some(&token), None, &[("x-workspace-id", claimed.as_str())]).await } };
        let text = |value: &serde_json::Value| value["id"].as_str().unwrap().to_owned();
        let own = agent.token.clone().unwrap();
        let plain = "expected a WebSocket upgrade";
        claim(own.clone(), id.clone()).await.refuses(400, plain);
        claim(ADMIN.to_owned(), text(&child)).await.refuses(400, plain);
        claim(ADMIN.to_owned(), other.clone()).await.refuses(400, plain);
        claim(own.clone(), other.clone()).await.refuses(401, "invalid token for claimed workspace");
        claim(ADMIN.to_owned(), "nobody".to_owned()).await.refuses(401, "invalid token for claimed workspace");
        let stranger = claim(ADMIN.to_owned(), text(&below)).await;
        stranger.refuses(403, "not authorized to access this workspace's terminal");
        claim(ADMIN.to_owned(), "00000000-0000-4000-8000-000000000000".to_owned()).await.refuses(403, "not authorized to access this workspace's terminal");
        app.fake.kill(app.fake.newest(id.parse().unwrap()).unwrap().key, 9);
        app.get(&path).await.refuses(404, "container not running");
    }

    async fn what_no_backend_runs_has_no_shell(app: TestApp) {
        let id = unclaimed(&app).await;
        app.get(&format!("/workspaces/{id}/terminal")).await.refuses(503, "Docker not available");
    }
}

adjusted! {
    |config| {
        compat(config);
        development(config);
    };

    async fn no_page_of_another_site_opens_a_shell(app: TestApp) {
        let (id, _) = super::gates::created(&app, None, "a").await;
        app.settle().await;
        let path = format!("/workspaces/{id}/terminal");
        let from = |origin: &'static str| { let (app, path) = (&app, &path); async move {
            app.send("GET", path, None, None, &[("host", "here:8080"), ("origin", origin)]).await } };
        from("https://elsewhere.example").await.refuses(403, "origin not allowed");
        from("http://here:8080.elsewhere.example").await.refuses(403, "origin not allowed");
        from("http://here:8080").await.refuses(404, "container not running");
        from("http://localhost:3000").await.refuses(404, "container not running");
    }
}
