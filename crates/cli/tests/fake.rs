//! A server of a few lines that gives canned answers, so that tests own everything the program sees.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// What the program asked.
pub(crate) struct Request {
    /// Method, path and query: `GET /workspaces`.
    pub(crate) line: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// The body; `null` without one.
    pub(crate) body: Value,
}

/// What it gets.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// 200 and text.
    Text(String),
    /// A stream of events that breaks after them.
    Events(Vec<Value>),
    /// A stream of events that stays open after them.
    EventsOpen(Vec<Value>),
    /// Nothing, until the program goes away.
    Silence,
}

/// 200 and a JSON body.
pub(crate) fn ok(body: Value) -> Reply {
    Reply::Json(200, body)
}

/// A refusal in the one form that refusals have.
pub(crate) fn refusal(status: u16, error: &str) -> Reply {
    Reply::Json(status, serde_json::json!({ "error": error }))
}

type Answer = Box<dyn FnMut(&Request) -> Reply + Send>;

/// The server; ends when dropped.
pub(crate) struct Fake {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    answer: Mutex<Answer>,
    asked: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Fake {
    /// Answers with `answer` on a port of its own.
    pub(crate) fn start(answer: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: Mutex::new(Box::new(answer)),
            asked: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve(&listener, &shared));
        Self { address, state, thread: Some(thread) }
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from its wait for the next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, state: &Arc<State>) {
    for connection in listener.incoming().map_while(Result::ok) {
        if state.stop.load(Ordering::SeqCst) {
            return;
        }
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            // A program that hangs up early is part of what is tested.
            let _ = converse(connection, &state);
        });
    }
}

/// One request, one answer.
fn converse(connection: TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let Some(request) = read(&mut reader)? else { return Ok(()) };
    state.asked.lock().unwrap().push(request.line.clone());
    let reply = (state.answer.lock().unwrap())(&request);
    let mut writer = connection;
    let mut open = false;
    match reply {
        Reply::Json(status, body) => {
            write(&mut writer, status, "application/json", &body.to_string())?;
        }
        Reply::Text(text) => write(&mut writer, 200, "text/plain", &text)?,
        Reply::Events(events) => write_events(&mut writer, &events)?,
        Reply::EventsOpen(events) => {
            write_events(&mut writer, &events)?;
            open = true;
        }
        Reply::Silence => open = true,
    }
    if open {
        // Returns when the program goes away.
        reader.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut token, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Request { line: format!("{method} {path}"), token, body }))
}

fn write(to: &mut TcpStream, status: u16, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        to,
        "HTTP/1.1 {status} .\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

/// Without a length: the stream ends where the connection does.
fn write_events(to: &mut TcpStream, events: &[Value]) -> std::io::Result<()> {
    write!(
        to,
        "HTTP/1.1 200 .\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n"
    )?;
    for event in events {
        write!(to, "id: {}\ndata: {event}\n\n", event["seq"])?;
    }
    to.flush()
}
