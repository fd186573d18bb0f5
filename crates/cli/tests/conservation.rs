//! No message is lost and none runs twice, whatever dies: a plan from a seed of agents and servers that are killed,
//! workspaces that sleep, and messages that are sent, sent again, and sent with nobody waiting for them. At every look
//! what callers were told stands in the ledger, and the agents' own count says that nothing ran twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::engines::Database;
use crate::http::Call;
use crate::stack::{Stack, generation, now, pause, say, service};

/// How long things go wrong.
const LASTS: Duration = Duration::from_secs(11);
/// How long everything that is open then may take to be over.
const DRAINS: Duration = Duration::from_secs(60);
/// Messages at most, repeated ones not counted.
const MOST: usize = 120;
/// Callers at the same time.
const CALLERS: u64 = 3;
const WORKSPACES: usize = 3;
/// States in which something still happens to a message.
const OPEN: [&str; 2] = ["accepted", "delivering"];
const OVER: [&str; 5] = ["processed", "acknowledged", "expired", "dead", "dropped"];

/// Numbers from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pause(&mut self, most: usize) {
        pause(Duration::from_millis(self.roll(most) as u64));
    }
}

/// A message, the same however often it is sent.
#[derive(Clone)]
struct Letter {
    name: String,
    to: String,
    millis: usize,
}

impl Letter {
    fn body(&self) -> Value {
        let message = json!({
            "messageId": self.name, "role": "user", "parts": [{"kind": "text", "text": self.name}],
            "metadata": {"ligand_echo_delay_ms": self.millis},
        });
        json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}})
    }
}

/// What callers know.
#[derive(Default)]
struct Told {
    /// Names of messages that they were told are accepted, by the ids that came with it.
    accepted: Mutex<BTreeMap<String, String>>,
    /// Names of messages whose own answer they had.
    answered: Mutex<BTreeSet<String>>,
    /// How calls were answered.
    statuses: Mutex<BTreeMap<String, usize>>,
    sent: Mutex<Vec<Letter>>,
    count: AtomicUsize,
    over: AtomicBool,
}

impl Told {
    /// One caller: new messages and old ones, to any server, in each way there is.
    fn call(&self, seed: u64, urls: &[String], admin: &str, ids: &[String]) {
        let mut dice = Dice::new(seed);
        while !self.over.load(Ordering::SeqCst) {
            let letter = self.letter(&mut dice, ids);
            let url = &urls[dice.roll(urls.len())];
            let prefer = [None, Some("respond-async"), Some("respond-async"), Some("wait=2")];
            let prefer = prefer[dice.roll(prefer.len())];
            self.send(url, admin, &letter, prefer);
            dice.pause(200);
        }
    }

    fn letter(&self, dice: &mut Dice, ids: &[String]) -> Letter {
        let mut sent = self.sent.lock().unwrap();
        let again = !sent.is_empty() && dice.roll(4) == 0;
        if again || sent.len() >= MOST {
            // Mostly one that is still on its way.
            let last = dice.roll(sent.len().min(12));
            return sent[sent.len() - 1 - last].clone();
        }
        let name = format!("m{}", self.count.fetch_add(1, Ordering::SeqCst));
        let letter = Letter { name, to: ids[dice.roll(ids.len())].clone(), millis: dice.roll(250) };
        sent.push(letter.clone());
        letter
    }

    fn send(&self, url: &str, admin: &str, letter: &Letter, prefer: Option<&str>) {
        let line = format!("POST /workspaces/{}/a2a", letter.to);
        let mut call = Call::new(url, &line).token(admin).json(&letter.body());
        if let Some(prefer) = prefer {
            call = call.header("prefer", prefer);
        }
        // Its server may be away, or die over it: then nothing was promised.
        let (status, body) = match call.try_send() {
            Err(_) => ("none".to_owned(), Value::Null),
            Ok(answer) => {
                let body = serde_json::from_str(&answer.body).unwrap_or_default();
                (answer.status.to_string(), body)
            }
        };
        match (status.as_str(), body["queue_id"].as_str()) {
            ("202", Some(id)) => {
                let mut accepted = self.accepted.lock().unwrap();
                let before = accepted.insert(id.to_owned(), letter.name.clone());
                assert!(before.is_none_or(|name| name == letter.name), "one id, two messages");
            }
            ("200", _) if body["result"].is_object() => {
                let text = body["result"]["parts"][0]["text"].as_str().unwrap();
                assert_eq!(text, format!("echo: {}", letter.name), "an answer of another message");
                self.answered.lock().unwrap().insert(letter.name.clone());
            }
            ("200" | "202", _) => panic!("{}: {status}: {body}", letter.name),
            _ => {}
        }
        *self.statuses.lock().unwrap().entry(status).or_default() += 1;
    }
}

/// Servers on one database, and their workspaces.
struct Field<'a> {
    stacks: Vec<Stack>,
    database: Option<&'a Database>,
    /// Workspaces that are harmed, and after them one that is not.
    ids: Vec<String>,
    /// Under which names the servers hold leases.
    holders: Vec<String>,
    told: &'a Told,
    /// How messages stood when they were last looked at.
    seen: BTreeMap<String, String>,
    looks: usize,
}

impl Field<'_> {
    /// Every row of the ledger: its state, its name, its last error.
    fn ledger(&self) -> BTreeMap<String, (String, String, Value)> {
        let mut rows = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = self.stacks[0].ask(&format!("GET /admin/messages?limit=50{after}"));
            for row in page["messages"].as_array().unwrap() {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                rows.insert(
                    text("queue_id"),
                    (text("state"), text("key"), row["last_error"].clone()),
                );
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return rows,
            }
        }
    }

    /// How often the turn of each message was run.
    fn effects(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for id in &self.ids {
            let path = self.stacks[0].tree(id).join("workspace/effects");
            for line in fs::read_to_string(path).unwrap_or_default().lines() {
                *counts.entry(line.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// What must hold at every moment. Gives how many are open.
    fn look(&mut self) -> usize {
        // First what was told, then what stands: whatever was told stands.
        let accepted = self.told.accepted.lock().unwrap().clone();
        let rows = self.ledger();
        for (id, name) in &accepted {
            let row =
                rows.get(id).unwrap_or_else(|| panic!("{name} ({id}) was accepted, and is gone"));
            assert_eq!(&row.1, name, "{id} is another message");
        }
        for id in self.seen.keys() {
            assert!(rows.contains_key(id), "{id} was in the ledger, and is gone");
        }
        let open = rows.values().filter(|row| OPEN.contains(&row.0.as_str())).count();
        let over = rows.values().filter(|row| OVER.contains(&row.0.as_str())).count();
        assert_eq!(open + over, rows.len(), "a state of another kind");
        for (id, (state, name, _)) in &rows {
            let before = self.seen.insert(id.clone(), state.clone());
            let done =
                before.is_some_and(|was| ["processed", "acknowledged"].contains(&was.as_str()));
            assert!(
                !done || ["processed", "acknowledged"].contains(&state.as_str()),
                "{name} is undone"
            );
        }
        for (name, count) in self.effects() {
            assert_eq!(count, 1, "{name} ran {count} times");
        }
        self.looks += 1;
        open
    }

    /// One thing that goes wrong.
    fn harm(&mut self, dice: &mut Dice) -> &'static str {
        let id = self.ids[dice.roll(WORKSPACES)].clone();
        match dice.roll(10) {
            0..4 => {
                let why = self.stacks[0].why(&id);
                let path = self.stacks[0]
                    .tree(&id)
                    .join(format!("run/{}.json", generation(&why["workspace"])));
                let record = fs::read(path)
                    .ok()
                    .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
                let leader = record.and_then(|record| record["identity"]["pid"].as_u64());
                let leader = leader.and_then(|pid| u32::try_from(pid).ok());
                let lives = leader.filter(|leader| self.stacks[0].processes().contains(leader));
                match lives {
                    Some(leader) => {
                        self.stacks[0].end_instance(leader);
                        "agent killed"
                    }
                    None => "nobody to kill",
                }
            }
            4..7 => {
                let at = dice.roll(self.stacks.len());
                self.stacks[at].kill_server();
                dice.pause(300);
                self.stacks[at].restart();
                self.bury(at);
                "server killed"
            }
            7..9 => {
                let line = format!("POST /workspaces/{id}/hibernate?force=true");
                let stack = &self.stacks[0];
                match Call::new(stack.url(), &line).token(&stack.admin()).send().status {
                    200..300 => "put to sleep",
                    _ => "not put to sleep",
                }
            }
            _ => "nothing",
        }
    }

    /// What a dead server had claimed ends by itself after a minute, which is not waited for here. On SQLite its next
    /// start ends it.
    fn bury(&mut self, at: usize) {
        if let Some(database) = self.database {
            database.end_claims();
            database.end_leases(&self.holders[at]);
            self.holders[at] = self.introduce(at);
        }
    }

    /// The name under which a server holds leases, by a message that it delivers.
    fn introduce(&self, at: usize) -> String {
        let Some(database) = self.database else { return String::new() };
        let name = format!("n{}", self.told.count.fetch_add(1, Ordering::SeqCst));
        let letter = Letter { name, to: self.ids[WORKSPACES].clone(), millis: 0 };
        let stack = &self.stacks[at];
        self.told.send(stack.url(), &stack.admin(), &letter, None);
        database.holder(&letter.name)
    }

    /// Nothing goes wrong any more: everything comes to its end.
    fn drain(&mut self) {
        let begun = now();
        let mut open = self.look();
        while open > 0 {
            assert!(begun.elapsed() < DRAINS, "{open} messages are open: {:#}", self.open());
            pause(Duration::from_millis(200));
            open = self.look();
        }
        say(&format!("after {:?} every message was over", begun.elapsed()));
        let (rows, effects) = (self.ledger(), self.effects());
        let answered = self.told.answered.lock().unwrap();
        for (state, name, error) in rows.values() {
            match state.as_str() {
                "processed" | "acknowledged" => {
                    assert_eq!(effects.get(name), Some(&1), "{name} is {state}, and never ran");
                }
                state => {
                    assert!(error.is_string(), "{name} is {state} without a reason");
                    assert!(!answered.contains(name), "{name} was answered, and is {state}");
                }
            }
        }
        for name in answered.iter() {
            assert_eq!(effects.get(name), Some(&1), "{name} was answered, and never ran");
        }
        let mut states = BTreeMap::<_, usize>::new();
        rows.values().for_each(|row| *states.entry(row.0.clone()).or_default() += 1);
        say(&format!(
            "{} messages: {states:?}; {} turns ran; {} looks",
            rows.len(),
            effects.len(),
            self.looks
        ));
        assert!(
            states.get("processed").is_some_and(|count| *count > 10),
            "hardly any was processed"
        );
    }

    fn open(&self) -> Value {
        let rows = self.ledger().into_iter().filter(|(_, row)| OPEN.contains(&row.0.as_str()));
        rows.map(|(id, _)| self.stacks[0].ask(&format!("GET /admin/messages/{id}"))).collect()
    }
}

/// A settings file by which instances count what they do.
fn settings(stack: &Stack) -> String {
    let path = stack.dir().join("ligand.toml");
    let program = env!("CARGO_BIN_EXE_ligand");
    let words = ["/usr/bin/env", "LIGAND_ECHO_EFFECTS=effects", program, "agent"];
    fs::write(&path, format!("heartbeat_seconds = 1\nagent = {words:?}\n")).unwrap();
    path.display().to_string()
}

/// The plan of a seed, on these servers.
fn play(seed: u64, stacks: Vec<Stack>, database: Option<&Database>) {
    say(&format!("seed {seed}"));
    let names: Vec<String> = (0..=WORKSPACES).map(|number| format!("w{number}")).collect();
    names.iter().for_each(|name| drop(stacks[0].ok(&["ws", "create", name])));
    let ids: Vec<String> = names.iter().map(|name| stacks[0].id(name)).collect();
    for id in &ids {
        stacks[0].settled(id);
    }
    let (urls, admin): (Vec<String>, _) =
        (stacks.iter().map(|stack| stack.url().to_owned()).collect(), stacks[0].admin());
    let told = Told::default();
    let (seen, looks) = (BTreeMap::new(), 0);
    let (all, holders) = (ids.clone(), Vec::new());
    let mut field = Field { stacks, database, ids: all, holders, told: &told, seen, looks };
    field.holders = (0..field.stacks.len()).map(|at| field.introduce(at)).collect();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (told, urls, admin, ids) = (&told, &urls, &admin, &ids[..WORKSPACES]);
            scope.spawn(move || told.call(seed + 1 + caller, urls, admin, ids));
        }
        // Callers end with the plan, also with one that fails.
        let _over = Over(&told.over);
        let (mut dice, begun) = (Dice::new(seed), now());
        while begun.elapsed() < LASTS {
            let harm = field.harm(&mut dice);
            let open = field.look();
            say(&format!("{:?}: {harm}; {open} open", begun.elapsed()));
            dice.pause(700);
        }
    });
    say(&format!("calls by status: {:?}", told.statuses.lock().unwrap()));
    field.drain();
    // Whoever would replace what the others end goes first.
    field.stacks.iter_mut().for_each(Stack::kill_server);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The seed of this run.
#[expect(clippy::disallowed_methods, reason = "a failure is replayed with its seed")]
fn seed() -> u64 {
    let said = std::env::var("LIGAND_TEST_SEED").ok().and_then(|text| text.parse().ok());
    said.unwrap_or_else(|| u64::from(std::process::id()))
}

#[test]
fn messages_are_conserved_on_sqlite() {
    let mut stack = Stack::prepare(&["serve", "platform"], &[]);
    let file = settings(&stack);
    stack.flag("--config", &file);
    stack.restart();
    play(seed(), vec![stack], None);
}

#[test]
fn messages_are_conserved_by_two_replicas_on_postgres() {
    let Some(server) = service("LIGAND_TEST_POSTGRES_URL") else { return };
    let database = Database::create(server);
    let mut first = Stack::prepare(&["serve", "platform"], &[("DATABASE_URL", database.url())]);
    let file = settings(&first);
    first.flag("--config", &file);
    first.restart();
    let mut second = first.replica();
    second.restart();
    play(seed(), vec![first, second], Some(&database));
}
