//! `ligand ws logs`.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ligand_api::client;
use serde_json::json;

use crate::clock;
use crate::error::{self, CommandError, CommandResult};
use crate::output::{self, Format};
use crate::session::{Named, Session};
use crate::target::ClientArgs;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A line that goes on longer than this is printed in parts.
const LONGEST_LINE: usize = 1 << 20;

/// Print the last lines that a workspace's instance wrote
///
/// With `--follow` it goes on with what is written from then on, over restarts of the workspace and
/// of the server, until interrupted. With `--output json`, every line is then an object.
#[derive(clap::Args)]
pub(crate) struct LogsArgs {
    /// Id or name of the workspace
    #[arg(value_name = "WS")]
    workspace: String,
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 200)]
    lines: usize,
    /// Go on until interrupted
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `ligand ws logs`.
pub(crate) async fn run(args: LogsArgs) -> CommandResult {
    let session = Session::open(&args.client)?;
    let named = session.resolve(&args.workspace).await?;
    if args.follow {
        return tokio::select! {
            done = follow(&session, &named, args.lines) => done,
            // Whoever has seen enough has got what was asked for.
            heard = tokio::signal::ctrl_c() => heard.map_err(|cause| CommandError::internal(cause.into())),
        };
    }
    let logs = session.client.logs(&named.id, args.lines).await?;
    match session.format {
        // As they were written, colours and all.
        Format::Table => output::bytes(&logs),
        Format::Json => {
            let text = String::from_utf8_lossy(&logs);
            output::json(&json!({ "lines": text.lines().collect::<Vec<_>>() }))
        }
    }
}

/// Follows a log, and takes it up again where the stream ends: the instance was replaced, or the server. The
/// first connection must succeed.
async fn follow(session: &Session, named: &Named, lines: usize) -> CommandResult {
    let mut stream = session.client.follow(&named.id, lines).await?.boxed();
    let (mut rest, mut pause) = (Vec::new(), FIRST_PAUSE);
    loop {
        let cause = match stream.next().await {
            Some(Ok(piece)) => {
                rest.extend_from_slice(&piece);
                print(session.format, &mut rest)?;
                pause = FIRST_PAUSE;
                continue;
            }
            Some(Err(error)) => error.to_string(),
            None => "the log ended here".to_owned(),
        };
        output::note(&format!("{cause}; going on with the next"));
        stream = again(session, named, &mut pause).await?;
    }
}

async fn again(
    session: &Session,
    named: &Named,
    pause: &mut Duration,
) -> CommandResult<BoxStream<'static, client::Result<bytes::Bytes>>> {
    loop {
        clock::pause(*pause).await;
        // Only what comes resets it: a server that accepts and hangs up is not to be hammered.
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match session.client.follow(&named.id, 0).await {
            Err(error) if error::passes(&error) => {
                output::note(&format!("{error}; trying again"));
            }
            stream => return Ok(stream?.boxed()),
        }
    }
}

/// Print what has come: as it was written, or a line at a time.
fn print(format: Format, rest: &mut Vec<u8>) -> CommandResult {
    match format {
        Format::Table => output::bytes(&std::mem::take(rest)),
        Format::Json => {
            while let Some(line) = line(rest) {
                let line = String::from_utf8_lossy(&line).into_owned();
                format.item(&json!({ "line": line }), String::new)?;
            }
            Ok(())
        }
    }
}

/// Take the first line, without its end, if it is whole.
fn line(rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = rest.iter().position(|byte| *byte == b'\n');
    let end =
        end.map(|end| end + 1).or_else(|| (rest.len() > LONGEST_LINE).then_some(rest.len()))?;
    let line: Vec<u8> = rest.drain(..end).collect();
    Some(line.trim_ascii_end().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole() {
        let mut rest = b"one\r\ntwo\nthr".to_vec();
        assert_eq!(line(&mut rest).unwrap(), b"one");
        assert_eq!(line(&mut rest).unwrap(), b"two");
        assert_eq!((line(&mut rest), rest.as_slice()), (None, b"thr".as_slice()));
    }
}
