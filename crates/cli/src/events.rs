//! `ligand events`: what happens, as it happens.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ligand_api::client;
use ligand_api::journal::Event;
use uuid::Uuid;

use crate::error::{self, CommandResult};
use crate::session::Session;
use crate::target::ClientArgs;
use crate::{clock, output, text};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Print events as they happen, one a line, until interrupted
///
/// When the stream breaks it is resumed from the last event that was printed. Times are UTC.
/// With `--output json`, every line is an object that carries its SEQ.
#[derive(clap::Args)]
pub(crate) struct EventsArgs {
    /// Begin after this event instead of with the next one
    #[arg(long, value_name = "SEQ")]
    after: Option<i64>,
    /// Show also what is only broadcast and not kept: heartbeats, task updates
    #[arg(long)]
    all: bool,
    /// Only events of this workspace, named by id or name
    #[arg(long, value_name = "WS")]
    workspace: Option<String>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECS")]
    seconds: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand events`.
pub(crate) async fn run(args: EventsArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let only = match &args.workspace {
        Some(workspace) => Some(session.resolve(workspace).await?.id),
        None => None,
    };
    let view = View { session, names: HashMap::new(), all: args.all, only };
    let follow = follow(view, args.after);
    match args.seconds {
        Some(seconds) => {
            tokio::time::timeout(Duration::from_secs(seconds), follow).await.unwrap_or(Ok(()))
        }
        None => follow.await,
    }
}

/// Follows the stream, and takes it up again where it broke. The first connection must succeed: a wrong
/// address or token should not look like silence.
async fn follow(mut view: View, mut cursor: Option<i64>) -> CommandResult {
    let mut stream = view.session.client.events(cursor).await?.boxed();
    let mut pause = FIRST_PAUSE;
    loop {
        let cause = match stream.next().await {
            Some(Ok(event)) => {
                // A server may repeat what was under way when the connection broke.
                if event.seq.is_none() || event.seq > cursor {
                    cursor = event.seq.or(cursor);
                    view.show(&event).await?;
                }
                pause = FIRST_PAUSE;
                continue;
            }
            Some(Err(error)) => error.to_string(),
            None => "the server ended the stream".to_owned(),
        };
        output::note(&format!("{cause}; resuming"));
        stream = view.reconnect(cursor, &mut pause).await?;
    }
}

/// What is shown, and under which names.
struct View {
    session: Session,
    names: HashMap<Uuid, String>,
    all: bool,
    only: Option<String>,
}

impl View {
    async fn reconnect(
        &self,
        cursor: Option<i64>,
        pause: &mut Duration,
    ) -> CommandResult<BoxStream<'static, client::Result<Event>>> {
        loop {
            clock::pause(*pause).await;
            // Only an event resets it: a server that accepts and hangs up is not to be hammered.
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            match self.session.client.events(cursor).await {
                Err(error) if error::passes(&error) => {
                    output::note(&format!("{error}; trying again"))
                }
                stream => return Ok(stream?.boxed()),
            }
        }
    }

    async fn show(&mut self, event: &Event) -> CommandResult {
        if !wanted(event, self.all, self.only.as_deref()) {
            return Ok(());
        }
        let name = match event.workspace_id {
            Some(id) => self.name(id).await,
            None => "-".to_owned(),
        };
        self.session.format.item(event, || row(event, &name))
    }

    /// The workspace's name, asked for once; its id where the server does not tell.
    async fn name(&mut self, id: Uuid) -> String {
        if !self.names.contains_key(&id) {
            let all = self.session.client.list().await.unwrap_or_default();
            self.names.extend(all.into_iter().map(|workspace| (workspace.id, workspace.name)));
        }
        self.names.entry(id).or_insert_with(|| id.to_string()).clone()
    }
}

fn wanted(event: &Event, all: bool, only: Option<&str>) -> bool {
    let here = only.is_none_or(|id| event.workspace_id.is_some_and(|of| of.to_string() == id));
    here && (all || event.seq.is_some())
}

fn row(event: &Event, name: &str) -> String {
    let payload = match &event.payload {
        serde_json::Value::Null => String::new(),
        payload => payload.to_string(),
    };
    let time = text::time_of_day(&event.timestamp);
    text::plain(&format!("{time}  {:24}  {name:20}  {payload}", event.event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_hidden_unless_asked_for() {
        let id = Uuid::from_u128(7);
        let kept = Event { seq: Some(1), workspace_id: Some(id), ..Event::default() };
        let broadcast = Event { seq: None, ..kept.clone() };
        assert!(wanted(&kept, false, None));
        assert!(!wanted(&broadcast, false, None));
        assert!(wanted(&broadcast, true, None));
        assert!(wanted(&kept, false, Some(&id.to_string())));
        assert!(!wanted(&kept, true, Some(&Uuid::nil().to_string())));
    }

    #[test]
    fn rows_are_one_line() {
        let event = Event {
            event: "WORKSPACE_ONLINE".into(),
            timestamp: "2026-01-02T03:04:05.678Z".into(),
            payload: serde_json::json!({ "generation": 2, "note": "a\nb" }),
            ..Event::default()
        };
        assert_eq!(
            row(&event, "demo"),
            "03:04:05.678  WORKSPACE_ONLINE          demo                  \
             {\"generation\":2,\"note\":\"a\\nb\"}"
        );
    }
}
