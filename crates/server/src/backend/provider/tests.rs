//! What is made of answers, whoever gives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ligand_domain::credential::Token;
use ligand_domain::id::{Generation, WorkspaceId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const ABOUT: &str = r#"{"protocol":1,"kind":"x","says":"something","delivery":"start_data","can":["files"],"more":1}"#;

fn answer(head: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// Whoever calls gets one answer after the other, and the last one for ever.
async fn says(answers: Vec<String>) -> (Provider, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = Address::new(&format!("http://{}", listener.local_addr().unwrap()), "the-token");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let _serving = start(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut heard, mut piece) = (Vec::new(), [0; 4096]);
            while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
                let length = stream.read(&mut piece).await.unwrap();
                heard.extend_from_slice(&piece[..length]);
            }
            let n = counted.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
            let _ = stream.write_all(answers[n].as_bytes()).await;
        }
    });
    (Provider::new(at.unwrap(), Pushes::channel().0).unwrap(), calls)
}

fn key() -> Key {
    Key { workspace: WorkspaceId::from_random([9; 16]), generation: Generation::new(1) }
}

#[tokio::test]
async fn only_a_provider_says_what_became_of_an_instance() {
    let gone = r#"{"state":"gone"}"#;
    let ours = answer("200 OK\r\nligand-provider: 1", gone);
    let (provider, _) = says(vec![ours]).await;
    assert_eq!(provider.inspect(key()).await.unwrap(), Seen::Gone);
    let others = [
        (answer("200 OK", gone), ErrorKind::Broken),
        (answer("404 Not Found", "no such page"), ErrorKind::Broken),
        (answer("404 Not Found\r\nligand-provider: 1", ""), ErrorKind::Broken),
        (answer("302 Found\r\nlocation: http://127.0.0.1:9/", ""), ErrorKind::Broken),
        (answer("502 Bad Gateway", "<html>"), ErrorKind::Transient),
        (answer("200 OK\r\nligand-provider: 1", "{}"), ErrorKind::Transient),
    ];
    for (other, kind) in others {
        let (provider, _) = says(vec![other.clone()]).await;
        let why = provider.inspect(key()).await.unwrap_err();
        assert_eq!(why.kind, kind, "{other}: {}", why.chain());
        assert!(!why.chain().contains("the-token"));
    }
    let strange = answer("200 OK\r\nligand-provider: 1", r#"{"state":"terminated"}"#);
    let (provider, _) = says(vec![strange]).await;
    assert!(matches!(provider.inspect(key()).await.unwrap(), Seen::Unknown(_)));
}

#[tokio::test]
async fn one_that_asks_for_less_is_left_alone() {
    let head = "429 Too Many Requests\r\nretry-after: 30";
    let (provider, calls) = says(vec![answer(head, "")]).await;
    for _ in 0..3 {
        let why = provider.inspect(key()).await.unwrap_err();
        assert_eq!(why.kind, ErrorKind::Transient);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_it_cannot_deliver_it_is_not_sent() {
    let about = answer("200 OK\r\nligand-provider: 1", ABOUT);
    let (provider, calls) = says(vec![about]).await;
    assert_eq!(provider.delivery(), Delivery::StartData, "that is right in either case");
    let spec = Spec::bare(key(), Vec::new(), Token::from_entropy([1; 32]));
    let why = provider.ensure(spec).await.unwrap_err();
    assert!(why.what.contains("delivers no files"), "{}", why.what);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "it was asked what it is, and nothing else");
    assert!(provider.can(Capability::Files) && !provider.can(Capability::Data));
    let other = ABOUT.replace("\"protocol\":1", "\"protocol\":2");
    let (provider, _) = says(vec![answer("200 OK\r\nligand-provider: 2", &other)]).await;
    let why = provider.fingerprint().await.unwrap_err();
    assert!(why.what.ends_with("it speaks version 2 of the protocol, expected 1"), "{}", why.what);
}
