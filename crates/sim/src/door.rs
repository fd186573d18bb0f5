//! Where agents are called: one listener for a whole world, on this machine, and no other network.
//!
//! A name is an instance's. What a turn there comes to is said in advance by the seed; what it did is kept, in the
//! workspace's own data where its agent remembers turns, so that it goes wherever the data goes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ligand_server::backend::fake::Fake;
use ligand_server::backend::{Backend as _, Key, Place, Root};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::{Value, json};

/// What the names of instances end in.
const DOMAIN: &str = "agents.example";

thread_local! {
    /// A world has a thread of its own.
    static PORT: Cell<u16> = const { Cell::new(0) };
    static THERE: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// What a turn comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It is done and answered.
    #[default]
    Answered,
    /// It is done, and the answer breaks off.
    Lost,
    /// The agent says that it is busy.
    Busy,
    /// The agent says that it failed.
    Failed,
}

/// An agent, as whoever calls it finds it.
#[derive(Clone)]
pub struct Resident {
    /// Where its data is.
    pub fake: Fake,
    /// Its program runs.
    pub runs: bool,
}

#[derive(Default)]
struct Book {
    residents: BTreeMap<String, (Key, Resident)>,
    next: Fate,
    /// How often the effect of each message was made.
    effects: BTreeMap<String, u32>,
    /// Who completed a turn that it was tried with.
    probed: BTreeSet<Key>,
}

/// See the module.
#[derive(Clone, Default)]
pub struct Door(Arc<Mutex<Book>>);

/// The address of an instance.
#[must_use]
pub fn address(key: Key) -> String {
    format!("http://{}", name(key))
}

fn name(key: Key) -> String {
    format!("g{}.{}.{DOMAIN}", key.generation, key.workspace)
}

impl Door {
    /// Open it.
    pub async fn open() -> Self {
        let door = Self::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("an address of this machine can be listened on");
        let port = listener.local_addr().expect("it has an address").port();
        PORT.with(|it| it.set(port));
        let router = Router::new().fallback(turn).with_state(door.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with its world's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        door
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These agents can be called from now on, and no others.
    pub fn move_in(&self, residents: impl IntoIterator<Item = (Key, Resident)>) {
        let residents: BTreeMap<_, _> =
            residents.into_iter().map(|(key, it)| (name(key), (key, it))).collect();
        THERE.with(|there| *there.borrow_mut() = residents.keys().cloned().collect());
        self.book().residents = residents;
    }

    /// What the next turn comes to.
    pub fn plan(&self, fate: Fate) {
        self.book().next = fate;
    }

    /// How often the effect of a message was made.
    #[must_use]
    pub fn effects(&self, message: &str) -> u32 {
        self.book().effects.get(message).copied().unwrap_or_default()
    }

    /// A message whose effect was made more than once.
    #[must_use]
    pub fn doubled(&self) -> Option<(String, u32)> {
        let book = self.book();
        book.effects.iter().find(|(_, count)| **count > 1).map(|(it, count)| (it.clone(), *count))
    }

    /// Whether an instance completed a turn that it was tried with.
    #[must_use]
    pub fn probed(&self, key: Key) -> bool {
        self.book().probed.contains(&key)
    }

    async fn serve(&self, host: &str, said: &Value) -> Response {
        let (found, fate) = {
            let mut book = self.book();
            (book.residents.get(host).cloned(), std::mem::take(&mut book.next))
        };
        let Some((key, Resident { fake, runs })) = found else {
            return StatusCode::NOT_FOUND.into_response();
        };
        if !runs || fate == Fate::Busy {
            return (StatusCode::SERVICE_UNAVAILABLE, r#"{"error": "busy"}"#).into_response();
        }
        let message = said["params"]["message"]["messageId"].as_str().unwrap_or_default();
        let at = Place { root: Root::Configs, path: PathBuf::from(format!("turns/{message}")) };
        let known = fake.read_file(key.workspace, at.clone()).await.is_ok();
        if fate == Fate::Failed && !known {
            return (StatusCode::UNPROCESSABLE_ENTITY, r#"{"error": "failed"}"#).into_response();
        }
        if !known {
            // Both, or neither: what an agent knows of a turn is written down with its effect.
            if fake.write_file(key.workspace, at, Bytes::from_static(b"done")).await.is_err() {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            let mut book = self.book();
            if message.starts_with("ligand-probe") {
                book.probed.insert(key);
            } else {
                *book.effects.entry(message.to_owned()).or_default() += 1;
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": said["id"], "result": {"kind": "message",
            "role": "agent", "messageId": "answer", "parts": [{"kind": "text", "text": "done"}]}});
        let word = if known { "replayed" } else { "processed" };
        let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("ligand-turn", word)];
        if fate == Fate::Lost {
            let breaks = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
            let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(breaks)]);
            return (headers, Body::from_stream(broken)).into_response();
        }
        (headers, body.to_string()).into_response()
    }
}

/// Whatever is asked of an agent. What is no turn is a nudge, which nothing rests on.
async fn turn(State(door): State<Door>, headers: HeaderMap, body: Bytes) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match serde_json::from_slice::<Value>(&body) {
        Ok(said) if said["params"]["message"].is_object() => door.serve(host, &said).await,
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Names of instances lead to the door of the world that asks; all others nowhere.
struct Here;

impl Resolve for Here {
    fn resolve(&self, name: Name) -> Resolving {
        let there = THERE.with(|there| there.borrow().contains(name.as_str()));
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT.with(Cell::get)));
        Box::pin(async move {
            match there {
                true => Ok(Box::new(std::iter::once(door)) as Addrs),
                false => Err(std::io::Error::from(std::io::ErrorKind::NotFound).into()),
            }
        })
    }
}

/// A client that a server can be given, which reaches nobody but agents. One for all worlds: making one costs more
/// than a world. It keeps no connection, for each belongs to a world.
#[must_use]
pub fn client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let builder = ligand_api::http::builder().expect("TLS can be set up").no_proxy();
        let builder = builder.dns_resolver(Arc::new(Here)).pool_max_idle_per_host(0);
        builder.build().expect("a client with these settings can be built")
    });
    CLIENT.clone()
}
