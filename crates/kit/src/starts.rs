//! Starting, finding, and what an instance is given.

use std::collections::BTreeMap;

use bytes::Bytes;
use ligand_domain::instance::Seen;
use ligand_server::backend::{Capability, ErrorKind, Root};

use crate::bench::{Bench, Doing, Done, Flaw, GRACE, at, kind, refused, until};

pub(crate) async fn starting_twice_starts_once(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let first = bench.start(key, Doing::Waits).await?;
    let second = bench.backend.ensure(bench.spec(key, Doing::Waits)).await?;
    same!(first, second);
    same!(bench.backend.find(key).await?, Some(first));
    same!(bench.seen(key).await?, Seen::Running);
    same!(bench.owned().await?, [key]);
    Ok(())
}

pub(crate) async fn two_starts_at_once_start_one(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let start = || bench.backend.ensure(bench.spec(key, Doing::Waits));
    let (first, second) = tokio::join!(start(), start());
    same!(first?, second?);
    same!(bench.owned().await?, [key]);
    Ok(())
}

pub(crate) async fn a_start_whose_answer_was_lost_is_found(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.ground.lose_reply();
    // Whoever asked is gone, wherever the call is by then.
    tokio::select! {
        biased;
        _ = bench.backend.ensure(bench.spec(key, Doing::Waits)) => {}
        () = std::future::ready(()) => {}
    }
    // Where that was before it was carried out, it is the next answer that is lost.
    let found = until("a start is confirmed", async || {
        match bench.backend.ensure(bench.spec(key, Doing::Waits)).await {
            Err(cause) if cause.kind == ErrorKind::Transient => None,
            answer => Some(answer.map_err(Into::into)),
        }
    })
    .await?;
    same!(bench.backend.find(key).await?, Some(found));
    same!(bench.owned().await?, [key]);
    same!(bench.seen(key).await?, Seen::Running);
    Ok(())
}

pub(crate) async fn another_spec_under_the_same_key_finds_the_first(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let first = bench.start(key, Doing::Waits).await?;
    let mut other = bench.spec(key, Doing::Exits("never", 9));
    other.env.insert("OTHER".to_owned(), "1".to_owned());
    same!(bench.backend.ensure(other).await?, first);
    same!(bench.seen(key).await?, Seen::Running);
    Ok(())
}

pub(crate) async fn what_was_never_started_is_gone(bench: &mut Bench) -> Done {
    let never = bench.key(2, 1);
    bench.start(bench.key(1, 1), Doing::Waits).await?;
    for never in [never, bench.key(1, 2)] {
        same!(bench.seen(never).await?, Seen::Gone);
        same!(bench.backend.find(never).await?, None);
    }
    Ok(())
}

pub(crate) async fn generations_of_a_workspace_are_told_apart(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    let first = bench.start(old, Doing::Waits).await?;
    bench.backend.destroy(old).await?;
    let second = bench.start(new, Doing::Waits).await?;
    differs!(first.handle, second.handle);
    same!((bench.seen(old).await?, bench.seen(new).await?), (Seen::Gone, Seen::Running));
    Ok(())
}

pub(crate) async fn workspaces_are_told_apart(bench: &mut Bench) -> Done {
    let (one, other) = (bench.key(1, 1), bench.key(2, 1));
    bench.start(one, Doing::Waits).await?;
    bench.start(other, Doing::Waits).await?;
    bench.backend.stop(one, GRACE).await?;
    holds!(matches!(bench.seen(one).await?, Seen::Stopped(_)));
    same!(bench.seen(other).await?, Seen::Running);
    Ok(())
}

pub(crate) async fn what_runs_is_listed_by_its_label(bench: &mut Bench) -> Done {
    let all = [bench.key(1, 3), bench.key(2, 1), bench.key(3, 41)];
    for key in all {
        bench.start(key, Doing::Waits).await?;
    }
    let mut listed = bench.owned().await?;
    listed.sort();
    let mut expected = all.to_vec();
    expected.sort();
    same!(listed, expected);
    Ok(())
}

pub(crate) async fn nothing_is_listed_on_new_ground(bench: &mut Bench) -> Done {
    same!(bench.owned().await?, []);
    same!(bench.data().await?, []);
    Ok(bench.backend.recover().await?)
}

pub(crate) async fn what_another_owner_has_is_neither_listed_nor_touched(
    bench: &mut Bench,
) -> Done {
    let (key, stranger) = (bench.key(1, 1), bench.ground.stranger()?);
    stranger.ensure(bench.spec(key, Doing::Waits)).await?;
    same!(bench.owned().await?, []);
    holds!(!bench.data().await?.contains(&key.workspace));
    same!((bench.seen(key).await?, bench.backend.find(key).await?), (Seen::Gone, None));
    // The same name, ours and theirs. Where a machine has room for one of them only, ours is refused.
    let refused = |answer: Done| match answer {
        Err(Flaw::Failed(cause)) if cause.kind == ErrorKind::Broken => Ok(()),
        answer => answer,
    };
    refused(bench.start(key, Doing::Waits).await.map(drop))?;
    bench.backend.stop(key, GRACE).await?;
    bench.backend.destroy(key).await?;
    refused(bench.backend.erase(key.workspace).await.map_err(Into::into))?;
    same!(stranger.inspect(key).await?, Seen::Running);
    same!(stranger.list_owned().await?, [key]);
    Ok(stranger.destroy(key).await?)
}

/// Names that a backend or a shell adds, besides `LIGAND_…`.
const ADDED: [&str; 17] = [
    "PATH",
    "LANG",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "HOSTNAME",
    "CONFIGS_DIR",
    "WORKSPACE_CONFIG_PATH",
    "WORKSPACE_DIR",
    "PLUGINS_DIR",
    "PYTHONPATH",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
];

pub(crate) async fn the_environment_is_exact(bench: &mut Bench) -> Done {
    let (key, odd) = (bench.key(1, 1), "a  b=$c 'd' \"e\" \\ é");
    let mut spec = bench.spec(key, Doing::ShowsEnvironment);
    let given = [("ODD", odd), ("EMPTY", ""), ("TIER", "3")];
    spec.env.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let names: Vec<String> = spec.env.keys().cloned().collect();
    bench.start_as(spec, Doing::ShowsEnvironment).await?;
    let text = bench.text(key, Root::Workspace, "environment").await?;
    let found: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    same!(given.map(|(name, _)| found.get(name).copied()), given.map(|(_, value)| Some(value)));
    for name in found.keys() {
        let known = ADDED.contains(name) || name.starts_with("LIGAND_");
        holds!(known || names.iter().any(|given| given == name), "{name} was not given");
    }
    Ok(())
}

pub(crate) async fn the_credential_is_there_before_it_starts(bench: &mut Bench) -> Done {
    let (key, doing) = (bench.key(1, 1), Doing::Copies(".auth_token"));
    let spec = bench.spec(key, doing);
    let credential = Bench::credential(&spec)?;
    bench.start_as(spec, doing).await?;
    same!(bench.text(key, Root::Workspace, "seen").await?, credential);
    Ok(())
}

pub(crate) async fn the_next_generation_has_a_credential_of_its_own(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    let spec = bench.spec(new, Doing::Waits);
    bench.start(old, Doing::Waits).await?;
    bench.backend.destroy(old).await?;
    let credential = Bench::credential(&spec)?;
    bench.start_as(spec, Doing::Waits).await?;
    same!(bench.text(new, Root::Configs, ".auth_token").await?, credential);
    Ok(())
}

pub(crate) async fn files_are_there_before_it_starts(bench: &mut Bench) -> Done {
    let (key, doing) = (bench.key(1, 1), Doing::Copies("deep/er/config.yaml"));
    let mut spec = bench.spec(key, doing);
    spec.files.insert("deep/er/config.yaml".to_owned(), Bytes::from_static(b"runtime: echo\n"));
    bench.start_as(spec, doing).await?;
    // A backend that takes no files yet has no method for them either.
    bench.list(key, at(Root::Configs, ""), 3).await?;
    same!(bench.text(key, Root::Workspace, "seen").await?, "runtime: echo\n");
    Ok(())
}

pub(crate) async fn files_of_the_same_name_are_replaced_and_others_stay(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    bench.write(old, Root::Configs, "mine.txt", "mine").await?;
    for (key, content) in [(old, "one"), (new, "two")] {
        let mut spec = bench.spec(key, Doing::Waits);
        spec.files.insert("config.yaml".to_owned(), Bytes::from_static(content.as_bytes()));
        bench.start_as(spec, Doing::Waits).await?;
        same!(bench.text(key, Root::Configs, "config.yaml").await?, content);
        bench.backend.destroy(key).await?;
    }
    same!(bench.text(new, Root::Configs, "mine.txt").await?, "mine");
    Ok(())
}

pub(crate) async fn a_program_that_is_not_there_is_refused(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let mut spec = bench.spec(key, Doing::Waits);
    spec.command = vec!["/no/such/program".to_owned()];
    bench.needs(Capability::Programs)?;
    let refused = refused(bench.backend.ensure(spec).await)?;
    // An engine's own words are for whoever runs the server, and stand in its log.
    let words = match bench.backend.kind() {
        "docker" => "workspace start failed",
        "process" => "/no/such/program",
        _ => "",
    };
    holds!(refused.chain().contains(words), "{}", refused.chain());
    same!(refused.kind, ErrorKind::Broken);
    bench.backend.destroy(key).await?;
    same!(bench.seen(key).await?, Seen::Gone);
    Ok(())
}

pub(crate) async fn a_backend_says_whether_it_can_be_used(bench: &mut Bench) -> Done {
    holds!(bench.backend.fingerprint().await?.len() > 5);
    holds!(!bench.backend.kind().is_empty());
    Ok(())
}

/// It is told apart from everything that could be taken for an end.
async fn a_moment_later_it_runs(bench: &mut Bench, trouble: impl Fn(&Bench) -> Done) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    trouble(bench)?;
    same!(kind(bench.seen(key).await)?, Some(ErrorKind::Transient));
    let seen = until("it answers", async || bench.seen(key).await.ok().map(Ok)).await?;
    same!(seen, Seen::Running);
    same!(bench.owned().await?, [key]);
    Ok(())
}

pub(crate) async fn too_many_calls_are_an_answer(bench: &mut Bench) -> Done {
    a_moment_later_it_runs(bench, |bench| bench.ground.throttle()).await
}

pub(crate) async fn an_engine_that_restarts_is_no_evidence(bench: &mut Bench) -> Done {
    a_moment_later_it_runs(bench, |bench| bench.ground.restart_engine()).await
}
