//! What instances say, and shells in them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use ligand_server::backend::{Bytestream, Capability, ErrorKind};

use crate::bench::{Bench, Doing, Done, GRACE, kind, until};

/// Wait until the log is this long, in lines.
async fn log(bench: &Bench, of: u8, lines: usize) -> Done<String> {
    bench.needs(Capability::Logs)?;
    until(&format!("the log has {lines} lines"), async || {
        let log = bench.backend.logs(bench.key(of, 1).workspace, 100).await;
        match log.map(|log| String::from_utf8_lossy(&log).into_owned()) {
            Ok(text) if text.lines().count() < lines => None,
            other => Some(other.map_err(Into::into)),
        }
    })
    .await
}

/// Read a stream until it has said this.
async fn hears(stream: &mut Bytestream, what: &str) -> Done {
    let mut text = String::new();
    let heard = tokio::time::timeout(Duration::from_secs(15), async {
        while !text.contains(what) {
            let Some(Ok(part)) = stream.next().await else { return false };
            text.push_str(&String::from_utf8_lossy(&part));
        }
        true
    });
    let heard = heard.await.unwrap_or(false);
    holds!(heard, "it did not say {what:?}: {text:?}");
    Ok(())
}

pub(crate) async fn the_end_of_a_log_is_as_long_as_asked(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Logs("one\ntwo\nthree")).await?;
    same!(log(bench, 1, 3).await?, "one\ntwo\nthree\n");
    for (lines, expected) in [(1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
        same!(bench.backend.logs(key.workspace, lines).await?, expected, "{lines}");
    }
    Ok(())
}

pub(crate) async fn a_log_of_nothing_is_empty(bench: &mut Bench) -> Done {
    bench.needs(Capability::Logs)?;
    same!(bench.backend.logs(bench.key(1, 1).workspace, 10).await?, "");
    Ok(())
}

pub(crate) async fn a_log_outlives_its_instance(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Logs("kept")).await?;
    log(bench, 1, 1).await?;
    bench.backend.stop(key, GRACE).await?;
    same!(log(bench, 1, 1).await?, "kept\n");
    bench.restart().await?;
    same!(log(bench, 1, 1).await?, "kept\n");
    Ok(())
}

pub(crate) async fn logs_of_workspaces_are_told_apart(bench: &mut Bench) -> Done {
    bench.start(bench.key(1, 1), Doing::Logs("first")).await?;
    bench.start(bench.key(2, 1), Doing::Logs("second")).await?;
    same!(
        (log(bench, 1, 1).await?, log(bench, 2, 1).await?),
        ("first\n".into(), "second\n".into())
    );
    Ok(())
}

pub(crate) async fn a_log_is_followed_as_it_grows(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    bench.needs(Capability::Follow)?;
    bench.start(old, Doing::Waits).await?;
    let mut stream = bench.backend.follow(old.workspace).await?;
    bench.backend.destroy(old).await?;
    bench.start(new, Doing::Logs("news")).await?;
    hears(&mut stream, "news").await
}

pub(crate) async fn a_terminal_shows_what_is_typed(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.needs(Capability::Terminal)?;
    bench.start(key, Doing::Waits).await?;
    let mut terminal = bench.backend.terminal(key, (80, 24)).await?;
    holds!(terminal.size.send((120, 40)).await.is_ok(), "the terminal is open");
    let typed = Bytes::from_static(b"echo the-answer-is-here\n");
    holds!(terminal.input.send(typed).await.is_ok(), "the terminal is open");
    hears(&mut terminal.output, "the-answer-is-here").await
}

pub(crate) async fn a_terminal_of_what_does_not_run_is_missing(bench: &mut Bench) -> Done {
    bench.needs(Capability::Terminal)?;
    let (stopped, never) = (bench.key(1, 1), bench.key(2, 1));
    bench.start(stopped, Doing::Waits).await?;
    bench.backend.stop(stopped, GRACE).await?;
    for key in [stopped, never] {
        let answer = kind(bench.backend.terminal(key, (80, 24)).await)?;
        same!(answer, Some(ErrorKind::Missing));
    }
    Ok(())
}
