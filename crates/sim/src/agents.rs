//! Who calls the platform: agents, zombies, thieves and strangers.

use ligand_server::backend::Key;
use ligand_server::backend::fake::Fake;
use serde_json::{Value, json};

use crate::calls::{Answer, Call};
use crate::door::Resident;
use crate::invariants;
use crate::model::{Sort, Workspace};
use crate::trace::{Violation, law};
use crate::world::World;

/// An agent's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Takes up an identity.
    Register,
    /// Keeps it.
    Heartbeat,
    /// Changes the card.
    Card,
    /// Takes a new credential, as it was told to.
    Rotate,
}

/// Who really calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// This agent.
    Agent(usize),
    /// Somebody with a credential of an older generation.
    Thief,
    /// Somebody with nothing, or with what was never valid there.
    Stranger,
}

/// A call on its way.
#[derive(Debug, Clone)]
pub struct Letter {
    /// To which workspace's identity.
    pub workspace: usize,
    /// From whom.
    pub who: Who,
    /// Which call.
    pub what: What,
    /// The bearer.
    pub bearer: Option<String>,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// The bearer is a passport.
    pub passport: bool,
    body: Value,
}

/// What an agent's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// It runs; with secrets that were fetched for this serial, or with those of its environment.
    Runs(Option<i64>),
    /// It does not.
    StandsBy,
}

/// One agent.
pub struct Agent {
    /// Of this workspace.
    pub workspace: usize,
    /// In this instance; `None` where no backend runs it.
    pub instance: Option<Key>,
    /// Its instance ended, and nobody told it.
    pub zombie: bool,
    /// It stands still: it never calls.
    pub hung: bool,
    /// It is no more.
    pub gone: bool,
    held: Option<String>,
    key: String,
    registered: bool,
    paced: bool,
    /// The rotation that a heartbeat's answer ordered.
    ordered: Option<i64>,
    /// What it held before, until what it holds has worked.
    previous: Option<String>,
    /// Registers without its bearer: it was refused with it.
    bare: bool,
    /// It came with its start-up data.
    passport: Option<String>,
    program: Program,
    /// The serial of the last wish that it stands by.
    stands_for: i64,
    /// It came up standing by, and was never told to run.
    waits: bool,
    /// The last answer said what its program is to do.
    wished: bool,
    /// Its program ran at some time.
    ran: bool,
}

impl Agent {
    /// An agent that begins, with the credential that was delivered to it.
    #[must_use]
    pub fn new(
        workspace: usize,
        instance: Option<Key>,
        held: Option<String>,
        key: String,
        paced: bool,
    ) -> Self {
        let (zombie, hung, gone, registered, bare) = (false, false, false, false, false);
        let (ordered, previous, passport) = (None, None, None);
        let (program, waits, wished, ran) = (Program::Runs(None), false, false, true);
        Self {
            workspace,
            instance,
            zombie,
            hung,
            gone,
            held,
            key,
            registered,
            paced,
            ordered,
            previous,
            bare,
            passport,
            program,
            stands_for: 0,
            waits,
            wished,
            ran,
        }
    }

    /// One that brings a passport, and waits until it is told to run.
    fn standing_by(self, passport: String) -> Self {
        let (program, waits, ran) = (Program::StandsBy, true, false);
        Self { held: None, passport: Some(passport), program, waits, ran, ..self }
    }

    /// Whether it can stand by.
    #[must_use]
    pub fn stands_by(&self) -> bool {
        self.paced
    }

    /// Whether it registered, and its program ran at some time.
    #[must_use]
    pub fn ran(&self) -> bool {
        self.ran && self.registered
    }

    /// The answer to a heartbeat says what its program is to do. Gives the serial for which it fetches secrets first.
    fn steer(&mut self, wish: &Value) -> Option<i64> {
        self.wished = wish.is_object();
        match wish["state"].as_str() {
            Some("stand-by") => {
                self.program = Program::StandsBy;
                self.stands_for = wish["serial"].as_i64().unwrap_or_default();
            }
            Some("run") if self.passport.is_some() => {
                let serial = wish["serial"].as_i64().unwrap_or_default();
                let runs = matches!(self.program, Program::Runs(Some(has)) if has >= serial);
                self.waits = false;
                return (!runs).then_some(serial);
            }
            Some("run") => self.program = Program::Runs(None),
            _ if self.waits => {}
            _ if self.program == Program::StandsBy && self.passport.is_some() => return Some(0),
            _ if self.program == Program::StandsBy => self.program = Program::Runs(None),
            _ => {}
        }
        None
    }

    fn says(&self) -> Option<Value> {
        match self.program {
            Program::StandsBy => Some(json!({"state": "standing-by", "serial": self.stands_for})),
            Program::Runs(Some(serial)) => Some(json!({"state": "running", "serial": serial})),
            Program::Runs(None) => self.wished.then(|| json!({"state": "running"})),
        }
    }

    fn hear(&mut self, letter: &Letter, answer: &Answer, fresh_key: String) {
        let body = answer.json();
        if answer.status == 200 {
            self.registered |= letter.what == What::Register;
            self.bare = false;
            // The key is kept until a call with the credential that it brought has succeeded.
            if letter.bearer.is_some() && letter.bearer == self.held {
                self.key = fresh_key;
            }
            if letter.bearer == self.held {
                self.previous = None;
            }
            self.ordered = body["rotate"].as_i64().or(self.ordered);
            if let Some(token) = body["auth_token"].as_str() {
                let before = self.held.replace(token.to_owned());
                self.previous = before.filter(|_| letter.what == What::Rotate);
                self.ordered = None;
            }
            return;
        }
        if letter.what == What::Rotate {
            self.ordered = None;
        }
        // Back to what has worked, where the new one does not.
        if let (Some(previous), true) = (self.previous.take(), letter.bearer == self.held) {
            self.held = Some(previous);
            return;
        }
        match body["action"].as_str() {
            Some("exit") => self.gone = self.instance.is_some(),
            Some("wait" | "reread-credential") => {}
            _ => {
                self.registered = false;
                self.bare = letter.what == What::Register && !self.bare;
            }
        }
    }
}

impl World {
    /// An agent writes a call.
    pub fn write(&mut self, at: usize, what: What, well: bool) -> Letter {
        let agent = &self.agents[at];
        let id = self.workspaces[agent.workspace].id.to_string();
        let features: &[&str] = match (agent.paced, agent.instance.is_some()) {
            (true, _) => &["paced", "rotate", "standby", "turns"],
            (false, true) => &["turns"],
            (false, false) => &[],
        };
        let program = agent.says();
        let url = format!("http://agent-{at}.example:8000");
        let bad = if well { 0 } else { self.dice.below(6) };
        let (error_rate, state) = match bad {
            4 => (0.9, ""),
            5 => (0.2, "wedged"),
            _ => (0.0, ""),
        };
        let body = match what {
            What::Register => json!({"id": id, "url": url, "agent_card": {"name": "simulated"},
                "ligand": {"version": "0", "features": features}}),
            What::Heartbeat => {
                json!({"workspace_id": id, "error_rate": error_rate, "runtime_state": state,
                    "ligand": {"program": program}})
            }
            What::Card => json!({"workspace_id": id, "agent_card": {"name": "changed"}}),
            What::Rotate => json!({"workspace_id": id, "serial": self.agents[at].ordered}),
        };
        let agent = &self.agents[at];
        let registers = what == What::Register;
        let held = agent.held.clone().filter(|_| !(registers && agent.bare));
        let brought = agent.passport.clone().filter(|_| registers && held.is_none());
        let passport = brought.is_some();
        let (bearer, key) = (held.or(brought), registers.then(|| agent.key.clone()));
        Letter {
            workspace: agent.workspace,
            who: Who::Agent(at),
            what,
            bearer,
            key,
            passport,
            body,
        }
    }

    /// What an agent would do now.
    pub fn duty(&mut self, at: usize, well: bool) -> What {
        let agent = &self.agents[at];
        let ordered = agent.registered && agent.ordered.is_some();
        if ordered && (well || self.dice.chance(70)) {
            return What::Rotate;
        }
        let agent = &self.agents[at];
        match (agent.registered, well) {
            (true, true) => What::Heartbeat,
            (false, true) => What::Register,
            (true, false) => {
                self.dice.weigh(&[(8, What::Heartbeat), (1, What::Register), (1, What::Card)])
            }
            (false, false) => {
                self.dice.weigh(&[(8, What::Register), (1, What::Heartbeat), (1, What::Card)])
            }
        }
    }

    /// Somebody without a right to it writes a call; `None` when there is nothing to try.
    pub fn forge(&mut self, who: Who) -> Option<Letter> {
        let workspace = self.dice.below(self.workspaces.len());
        let known = &self.workspaces[workspace];
        if known.sort == Sort::Open && who == Who::Stranger {
            return None;
        }
        let current = known.seen.current;
        let bearer = match (who, self.dice.below(3)) {
            (Who::Stranger, 0) => None,
            (Who::Stranger, 1) => Some(self.dice.text()),
            _ => {
                let stolen: Vec<&String> = self
                    .minted
                    .iter()
                    .filter(|(_, (of, generation))| match who {
                        Who::Thief => *of == workspace && *generation < current,
                        Who::Stranger | Who::Agent(_) => *of != workspace,
                    })
                    .map(|(token, _)| token)
                    .collect();
                Some((*stolen.get(self.dice.below(stolen.len()))?).clone())
            }
        };
        let what = self.dice.pick(&[What::Register, What::Heartbeat, What::Card, What::Rotate]);
        let id = known.id.to_string();
        let body = match what {
            What::Register => {
                json!({"id": id, "url": "http://thief.example:8000", "agent_card": {"name": "thief"}})
            }
            What::Heartbeat => json!({"workspace_id": id}),
            What::Card => json!({"workspace_id": id, "agent_card": {"name": "thief"}}),
            What::Rotate => json!({"workspace_id": id, "serial": 1}),
        };
        Some(Letter { workspace, who, what, bearer, key: None, passport: false, body })
    }

    /// A call arrives. Its answer may be lost.
    ///
    /// # Errors
    /// The law that was broken.
    pub async fn deliver(&mut self, letter: Letter, lost: bool) -> Result<(), Violation> {
        let path = match letter.what {
            What::Register => "/registry/register",
            What::Heartbeat => "/registry/heartbeat",
            What::Card => "/registry/update-card",
            What::Rotate => "/registry/rotate",
        };
        let at = letter.workspace;
        let before = self.workspaces[at].seen.clone();
        let call = Call::agent(path, letter.bearer.as_deref(), letter.key.as_deref());
        let replica = self.dice.below(self.replicas.len());
        let answer = self.replicas[replica].ask(call.body(letter.body.clone())).await;
        self.calls += 1;
        let held = letter.bearer.as_ref().and_then(|bearer| self.minted.get(bearer));
        let generation = held.filter(|(of, _)| *of == at).map(|(_, generation)| *generation);
        let (name, status) = (&self.workspaces[at].name, answer.status);
        let fate = if lost { ", and its answer is lost" } else { "" };
        let by = generation.map_or("nothing valid".to_owned(), |it| format!("generation {it}"));
        let said = answer.json()["action"].as_str().map(|it| format!(" {it}")).unwrap_or_default();
        self.say(format!(
            "{name}: {:?} {:?} by {by} at replica {replica}: {status}{said}{fate}",
            letter.who, letter.what
        ));
        self.note_minted(at, &answer);
        self.look(at).await?;
        // Its idempotency key says that it is the one whose answer was lost, whatever older bearer it sends along.
        let again = letter.key.as_ref().is_some_and(|key| self.unanswered.contains(key));
        let by = generation.filter(|_| !again);
        self.note_answered(&letter, &answer, lost)?;
        invariants::call(&self.workspaces[at], &before, &letter, by, &answer)?;
        if let (Who::Agent(agent), false) = (letter.who, lost) {
            let fresh = self.dice.text();
            self.agents[agent].hear(&letter, &answer, fresh);
            self.exits(agent);
            if letter.what == What::Heartbeat && answer.status == 200 {
                self.steer(agent, &answer.json()["program"]).await;
            }
        }
        Ok(())
    }

    /// Whoever did not get an answer, and asks again in the same words, gets one.
    fn note_answered(
        &mut self,
        letter: &Letter,
        answer: &Answer,
        lost: bool,
    ) -> Result<(), Violation> {
        let Some(key) = &letter.key else { return Ok(()) };
        let Workspace { name, removed, .. } = &self.workspaces[letter.workspace];
        let repeats = letter.bearer.is_none() && self.unanswered.contains(key) && !removed;
        law(!repeats || answer.status == 200, "a lost answer locks nobody out", || {
            format!("{name}: {} {}", answer.status, answer.text)
        })?;
        if lost && answer.text.contains("auth_token") {
            self.unanswered.insert(key.clone());
        } else if !lost {
            self.unanswered.remove(key);
        }
        Ok(())
    }

    fn note_minted(&mut self, workspace: usize, answer: &Answer) {
        let body = answer.json();
        if let (Some(token), Some(generation)) =
            (body["auth_token"].as_str(), body["generation"].as_i64())
        {
            self.minted.insert(token.to_owned(), (workspace, generation));
        }
    }

    /// An agent does with its program what it was told to.
    async fn steer(&mut self, at: usize, wish: &Value) {
        let before = self.agents[at].program;
        if let Some(serial) = self.agents[at].steer(wish) {
            let agent = &self.agents[at];
            let path =
                format!("/workspaces/{}/secrets/values", self.workspaces[agent.workspace].id);
            let replica = self.dice.below(self.replicas.len());
            let call = Call::read(&path, agent.held.as_deref());
            if self.replicas[replica].ask(call).await.status == 200 {
                let agent = &mut self.agents[at];
                (agent.program, agent.ran) = (Program::Runs(Some(serial)), true);
            }
        }
        if self.agents[at].program != before {
            self.say(format!("the program of agent {at}: {:?}", self.agents[at].program));
            self.open_doors();
        }
    }

    /// Agents that can be called, and what their programs do.
    fn open_doors(&self) {
        let all = self.agents.iter().filter(|agent| !agent.gone && !agent.hung && !agent.zombie);
        let residents = all.filter_map(|agent| {
            let key = agent.instance?;
            let has = |fake: &&Fake| fake.instances().iter().any(|it| it.key == key);
            let fake = self.fakes.iter().find(has)?.clone();
            let runs = matches!(agent.program, Program::Runs(_));
            Some((key, Resident { fake, runs }))
        });
        self.door.move_in(residents);
    }

    /// An agent that was told to exit does, and its instance with it.
    fn exits(&mut self, at: usize) {
        let agent = &self.agents[at];
        if let (true, Some(key)) = (agent.gone, agent.instance) {
            self.kill(key, 15);
        }
    }

    /// Instances that began have an agent, and those that ended have none, unless it lives on unseen.
    pub fn sync_agents(&mut self) {
        let running = self.running();
        for at in 0..self.agents.len() {
            let Some(key) = self.agents[at].instance else { continue };
            let ended = !self.agents[at].gone && !running.contains(&key);
            if ended && !self.agents[at].zombie {
                let zombie = self.dice.chance(25);
                (self.agents[at].zombie, self.agents[at].gone) = (zombie, !zombie);
            }
        }
        for instance in self.instances() {
            let key = instance.key;
            let known = self.agents.iter().any(|agent| agent.instance == Some(key));
            let place = self.workspaces.iter().position(|it| it.id == key.workspace);
            let Some(at) = place.filter(|_| !known && instance.exit.is_none()) else { continue };
            let (idempotency, paced) = (self.dice.text(), self.dice.chance(60));
            let passport = instance.env.get("LIGAND_PASSPORT").cloned();
            let brings = passport.clone().unwrap_or_else(|| instance.credential.clone());
            self.minted.insert(brings, (at, key.generation.number()));
            let held = Some(instance.credential);
            let agent = Agent::new(at, Some(key), held, idempotency, paced || passport.is_some());
            self.agents.push(match passport {
                Some(passport) => agent.standing_by(passport),
                None => agent,
            });
            if self.workspaces[at].doomed > 0 {
                self.workspaces[at].doomed -= 1;
                self.kill(key, 11);
            }
        }
        self.open_doors();
    }
}
