//! Starting, finding, and what an instance is given.

use std::collections::BTreeMap;

use bytes::Bytes;
use ligand_domain::instance::Seen;
use ligand_server::backend::{ErrorKind, Root};

use super::bench::{Bench, Doing, Done, GRACE, key, kind};

pub(super) async fn starting_twice_starts_once(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    let first = bench.start(key, Doing::Waits).await?;
    let second = bench.backend.ensure(bench.spec(key, Doing::Waits)).await?;
    assert_eq!(first, second);
    assert_eq!(bench.backend.find(key).await?, Some(first));
    assert_eq!(bench.seen(key).await?, Seen::Running);
    assert_eq!(bench.backend.list_owned().await?, [key]);
    Ok(())
}

pub(super) async fn two_starts_at_once_start_one(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    let start = || bench.backend.ensure(bench.spec(key, Doing::Waits));
    let (first, second) = tokio::join!(start(), start());
    assert_eq!(first?, second?);
    assert_eq!(bench.backend.list_owned().await?, [key]);
    Ok(())
}

pub(super) async fn a_start_whose_answer_was_lost_is_found(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.ground.lose_reply();
    // Whoever asked is gone, wherever the call is by then.
    tokio::select! {
        biased;
        _ = bench.backend.ensure(bench.spec(key, Doing::Waits)) => {}
        () = std::future::ready(()) => {}
    }
    let found = bench.backend.ensure(bench.spec(key, Doing::Waits)).await?;
    assert_eq!(bench.backend.find(key).await?, Some(found));
    assert_eq!(bench.backend.list_owned().await?, [key]);
    assert_eq!(bench.seen(key).await?, Seen::Running);
    Ok(())
}

pub(super) async fn another_spec_under_the_same_key_finds_the_first(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    let first = bench.start(key, Doing::Waits).await?;
    let mut other = bench.spec(key, Doing::Exits("never", 9));
    other.env.insert("OTHER".to_owned(), "1".to_owned());
    assert_eq!(bench.backend.ensure(other).await?, first);
    assert_eq!(bench.seen(key).await?, Seen::Running);
    Ok(())
}

pub(super) async fn what_was_never_started_is_gone(bench: &mut Bench) -> Done {
    let never = key(2, 1);
    bench.start(key(1, 1), Doing::Waits).await?;
    for never in [never, key(1, 2)] {
        assert_eq!(bench.seen(never).await?, Seen::Gone);
        assert_eq!(bench.backend.find(never).await?, None);
    }
    Ok(())
}

pub(super) async fn generations_of_a_workspace_are_told_apart(bench: &mut Bench) -> Done {
    let (old, new) = (key(1, 1), key(1, 2));
    let first = bench.start(old, Doing::Waits).await?;
    bench.backend.destroy(old).await?;
    let second = bench.start(new, Doing::Waits).await?;
    assert_ne!(first.handle, second.handle);
    assert_eq!((bench.seen(old).await?, bench.seen(new).await?), (Seen::Gone, Seen::Running));
    Ok(())
}

pub(super) async fn workspaces_are_told_apart(bench: &mut Bench) -> Done {
    let (one, other) = (key(1, 1), key(2, 1));
    bench.start(one, Doing::Waits).await?;
    bench.start(other, Doing::Waits).await?;
    bench.backend.stop(one, GRACE).await?;
    assert!(matches!(bench.seen(one).await?, Seen::Stopped(_)));
    assert_eq!(bench.seen(other).await?, Seen::Running);
    Ok(())
}

pub(super) async fn what_runs_is_listed_by_its_label(bench: &mut Bench) -> Done {
    let all = [key(1, 3), key(2, 1), key(3, 41)];
    for key in all {
        bench.start(key, Doing::Waits).await?;
    }
    let mut listed = bench.backend.list_owned().await?;
    listed.sort();
    let mut expected = all.to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    Ok(())
}

pub(super) async fn nothing_is_listed_on_new_ground(bench: &mut Bench) -> Done {
    assert_eq!(bench.backend.list_owned().await?, []);
    assert_eq!(bench.backend.list_data().await?, []);
    bench.backend.recover().await
}

pub(super) async fn what_another_owner_has_is_neither_listed_nor_touched(
    bench: &mut Bench,
) -> Done {
    let (key, stranger) = (key(1, 1), bench.ground.stranger());
    stranger.ensure(bench.spec(key, Doing::Waits)).await?;
    assert_eq!(bench.backend.list_owned().await?, []);
    assert!(!bench.backend.list_data().await?.contains(&key.workspace));
    assert_eq!((bench.seen(key).await?, bench.backend.find(key).await?), (Seen::Gone, None));
    // The same name, ours and theirs. Where a machine has room for one of them only, ours is refused.
    let refused = |answer: Done| match answer {
        Err(cause) if cause.kind == ErrorKind::Broken => Ok(()),
        answer => answer,
    };
    refused(bench.start(key, Doing::Waits).await.map(drop))?;
    bench.backend.stop(key, GRACE).await?;
    bench.backend.destroy(key).await?;
    refused(bench.backend.erase(key.workspace).await)?;
    assert_eq!(stranger.inspect(key).await?, Seen::Running);
    assert_eq!(stranger.list_owned().await?, [key]);
    stranger.destroy(key).await
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

pub(super) async fn the_environment_is_exact(bench: &mut Bench) -> Done {
    let (key, odd) = (key(1, 1), "a  b=$c 'd' \"e\" \\ é");
    let mut spec = bench.spec(key, Doing::ShowsEnvironment);
    let given = [("ODD", odd), ("EMPTY", ""), ("TIER", "3")];
    spec.env.extend(given.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let names: Vec<String> = spec.env.keys().cloned().collect();
    bench.start_as(spec, Doing::ShowsEnvironment).await?;
    let text = bench.text(key, Root::Workspace, "environment").await?;
    let found: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    assert_eq!(
        given.map(|(name, _)| found.get(name).copied()),
        given.map(|(_, value)| Some(value))
    );
    for name in found.keys() {
        let known = ADDED.contains(name) || name.starts_with("LIGAND_");
        assert!(known || names.iter().any(|given| given == name), "{name} was not given");
    }
    Ok(())
}

pub(super) async fn the_credential_is_there_before_it_starts(bench: &mut Bench) -> Done {
    let (key, doing) = (key(1, 1), Doing::Copies(".auth_token"));
    let spec = bench.spec(key, doing);
    let credential = spec.credential.as_ref().expect("it has one").reveal().to_owned();
    bench.start_as(spec, doing).await?;
    assert_eq!(bench.text(key, Root::Workspace, "seen").await?, credential);
    Ok(())
}

pub(super) async fn the_next_generation_has_a_credential_of_its_own(bench: &mut Bench) -> Done {
    let (old, new) = (key(1, 1), key(1, 2));
    let spec = bench.spec(new, Doing::Waits);
    bench.start(old, Doing::Waits).await?;
    bench.backend.destroy(old).await?;
    let credential = spec.credential.as_ref().expect("it has one").reveal().to_owned();
    bench.start_as(spec, Doing::Waits).await?;
    assert_eq!(bench.text(new, Root::Configs, ".auth_token").await?, credential);
    Ok(())
}

pub(super) async fn files_are_there_before_it_starts(bench: &mut Bench) -> Done {
    let (key, doing) = (key(1, 1), Doing::Copies("deep/er/config.yaml"));
    let mut spec = bench.spec(key, doing);
    spec.files.insert("deep/er/config.yaml".to_owned(), Bytes::from_static(b"runtime: echo\n"));
    bench.start_as(spec, doing).await?;
    // A backend that takes no files yet has no method for them either.
    bench.backend.list_files(key.workspace, super::bench::at(Root::Configs, ""), 3).await?;
    assert_eq!(bench.text(key, Root::Workspace, "seen").await?, "runtime: echo\n");
    Ok(())
}

pub(super) async fn files_of_the_same_name_are_replaced_and_others_stay(bench: &mut Bench) -> Done {
    let (old, new) = (key(1, 1), key(1, 2));
    bench.write(old, Root::Configs, "mine.txt", "mine").await?;
    for (key, content) in [(old, "one"), (new, "two")] {
        let mut spec = bench.spec(key, Doing::Waits);
        spec.files.insert("config.yaml".to_owned(), Bytes::from_static(content.as_bytes()));
        bench.start_as(spec, Doing::Waits).await?;
        assert_eq!(bench.text(key, Root::Configs, "config.yaml").await?, content);
        bench.backend.destroy(key).await?;
    }
    assert_eq!(bench.text(new, Root::Configs, "mine.txt").await?, "mine");
    Ok(())
}

pub(super) async fn a_program_that_is_not_there_is_refused(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    let mut spec = bench.spec(key, Doing::Waits);
    spec.command = vec!["/no/such/program".to_owned()];
    let refused = bench.backend.ensure(spec).await.expect_err("there is no such program");
    // An engine's own words are for whoever runs the server, and stand in its log.
    let engine = bench.backend.kind() == "docker";
    let words = if engine { "workspace start failed" } else { "/no/such/program" };
    assert!(refused.chain().contains(words), "{}", refused.chain());
    assert_eq!(refused.kind, ErrorKind::Broken);
    bench.backend.destroy(key).await?;
    assert_eq!(bench.seen(key).await?, Seen::Gone);
    Ok(())
}

pub(super) async fn a_backend_says_whether_it_can_be_used(bench: &mut Bench) -> Done {
    assert!(bench.backend.fingerprint().await?.len() > 5);
    assert!(!bench.backend.kind().is_empty());
    Ok(())
}

/// It is told apart from everything that could be taken for an end.
async fn a_moment_later_it_runs(bench: &mut Bench, trouble: impl Fn(&Bench)) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Waits).await?;
    trouble(bench);
    assert_eq!(kind(bench.seen(key).await), Some(ErrorKind::Transient));
    let seen = super::bench::until(async || bench.seen(key).await.ok()).await;
    assert_eq!(seen, Seen::Running);
    assert_eq!(bench.backend.list_owned().await?, [key]);
    Ok(())
}

pub(super) async fn too_many_calls_are_an_answer(bench: &mut Bench) -> Done {
    a_moment_later_it_runs(bench, |bench| bench.ground.throttle()).await
}

pub(super) async fn an_engine_that_restarts_is_no_evidence(bench: &mut Bench) -> Done {
    a_moment_later_it_runs(bench, |bench| bench.ground.restart_engine()).await
}
