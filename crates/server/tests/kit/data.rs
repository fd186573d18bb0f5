//! A workspace's data: it outlives instances, and travels whole or not at all.

use bytes::Bytes;
use ligand_server::backend::{ErrorKind, Root};

use super::bench::{Bench, Doing, Done, GRACE, at, key, kind, pieces, refused};

/// Data with what archives like to lose: an empty file, an odd name, a deep one, one that is longer than a block.
async fn furnish(bench: &Bench, of: u8) -> Done {
    let key = key(of, 1);
    bench.write(key, Root::Workspace, "notes/deep/er/plan.md", "a plan").await?;
    bench.write(key, Root::Workspace, "empty", "").await?;
    bench.write(key, Root::Home, ".odd name é", "odd").await?;
    let long = Bytes::from(vec![b'x'; 70_001]);
    bench.backend.write_file(key.workspace, at(Root::Workspace, "long.bin"), long).await
}

pub(super) async fn data_outlives_its_instance(bench: &mut Bench) -> Done {
    let (old, new) = (key(1, 1), key(1, 2));
    bench.start(old, Doing::Writes("kept")).await?;
    assert_eq!(bench.text(old, Root::Workspace, "note").await?, "kept");
    bench.backend.stop(old, GRACE).await?;
    bench.backend.destroy(old).await?;
    bench.start(new, Doing::Waits).await?;
    assert_eq!(bench.text(new, Root::Workspace, "note").await?, "kept");
    Ok(())
}

pub(super) async fn erased_data_is_gone_and_erasing_twice_is_success(bench: &mut Bench) -> Done {
    let (gone, stays) = (key(1, 1), key(2, 1));
    furnish(bench, 1).await?;
    furnish(bench, 2).await?;
    for _ in 0..2 {
        bench.backend.erase(gone.workspace).await?;
    }
    assert_eq!(kind(bench.read(gone, Root::Workspace, "empty").await), Some(ErrorKind::Missing));
    assert_eq!(bench.read(stays, Root::Home, ".odd name é").await?, "odd");
    Ok(())
}

pub(super) async fn whose_data_is_there_is_listed(bench: &mut Bench) -> Done {
    let (idle, runs) = (key(1, 1), key(2, 1));
    bench.write(idle, Root::Workspace, "note", "x").await?;
    bench.start(runs, Doing::Writes("x")).await?;
    bench.text(runs, Root::Workspace, "note").await?;
    bench.backend.destroy(runs).await?;
    bench.restart().await?;
    let mut listed = bench.backend.list_data().await?;
    listed.sort();
    assert_eq!(listed, [idle.workspace, runs.workspace]);
    bench.backend.erase(idle.workspace).await?;
    assert_eq!(bench.backend.list_data().await?, [runs.workspace]);
    Ok(())
}

pub(super) async fn what_is_imported_is_what_was_exported(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (key(1, 1), key(2, 1));
    let (archive, digest) =
        (bench.archive(from).await?, bench.backend.digest(from.workspace).await?);
    let came =
        bench.backend.import(to.workspace, pieces(&archive), Some(digest.digest.clone())).await?;
    assert_eq!(came, digest);
    assert_eq!(bench.backend.digest(to.workspace).await?, digest);
    assert_eq!(bench.read(to, Root::Workspace, "notes/deep/er/plan.md").await?, "a plan");
    assert_eq!(bench.read(to, Root::Workspace, "empty").await?, "");
    assert_eq!(bench.read(to, Root::Home, ".odd name é").await?, "odd");
    assert_eq!(bench.read(to, Root::Workspace, "long.bin").await?.len(), 70_001);
    // What left is still there.
    assert_eq!(bench.backend.digest(from.workspace).await?, digest);
    Ok(())
}

pub(super) async fn an_archive_with_another_digest_changes_nothing(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (key(1, 1), key(2, 1));
    let archive = bench.archive(from).await?;
    bench.write(to, Root::Workspace, "mine", "mine").await?;
    let before = bench.backend.digest(to.workspace).await?;
    let wrong = Some("0".repeat(64));
    refused(bench.backend.import(to.workspace, pieces(&archive), wrong).await)?;
    assert_eq!(bench.backend.digest(to.workspace).await?, before);
    assert_eq!(bench.read(to, Root::Workspace, "mine").await?, "mine");
    Ok(())
}

pub(super) async fn what_is_no_archive_changes_nothing(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let key = key(1, 1);
    let (archive, before) = (bench.archive(key).await?, bench.backend.digest(key.workspace).await?);
    let half = archive.slice(..archive.len() / 2);
    for bad in [half, Bytes::from(vec![b'z'; 5000])] {
        refused(bench.backend.import(key.workspace, pieces(&bad), None).await)?;
        assert_eq!(bench.backend.digest(key.workspace).await?, before);
    }
    // A network that breaks off.
    let whole = pieces(&archive);
    let broken = futures_util::StreamExt::chain(
        futures_util::StreamExt::take(whole, 3),
        futures_util::stream::iter([Err(std::io::Error::other("reset by peer"))]),
    );
    refused(bench.backend.import(key.workspace, Box::pin(broken), None).await)?;
    assert_eq!(bench.backend.digest(key.workspace).await?, before);
    Ok(())
}

pub(super) async fn an_import_takes_the_place_of_what_was_there(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (key(1, 1), key(2, 1));
    bench.write(to, Root::Workspace, "older", "older").await?;
    let archive = bench.archive(from).await?;
    for _ in 0..2 {
        let came = bench.backend.import(to.workspace, pieces(&archive), None).await?;
        assert_eq!(came, bench.backend.digest(from.workspace).await?);
    }
    assert_eq!(kind(bench.read(to, Root::Workspace, "older").await), Some(ErrorKind::Missing));
    Ok(())
}

pub(super) async fn a_digest_tells_one_content_from_another(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let key = key(1, 1);
    let digest = || bench.backend.digest(key.workspace);
    let first = digest().await?;
    assert_eq!(digest().await?, first, "nothing was changed");
    assert!(first.digest.len() == 64 && first.digest.bytes().all(|it| it.is_ascii_hexdigit()));
    bench.write(key, Root::Workspace, "empty", "!").await?;
    let second = digest().await?;
    assert_ne!(second.digest, first.digest, "one byte");
    assert_eq!(second.bytes, first.bytes + 1);
    bench.backend.remove_file(key.workspace, at(Root::Workspace, "empty")).await?;
    bench.write(key, Root::Workspace, "full", "!").await?;
    assert_ne!(digest().await?.digest, second.digest, "one name");
    Ok(())
}

pub(super) async fn the_same_data_has_the_same_digest_on_other_ground(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (key, stranger) = (key(1, 1), bench.ground.stranger());
    let (archive, digest) = (bench.archive(key).await?, bench.backend.digest(key.workspace).await?);
    stranger.import(key.workspace, pieces(&archive), Some(digest.digest.clone())).await?;
    assert_eq!(stranger.digest(key.workspace).await?, digest);
    stranger.erase(key.workspace).await
}

pub(super) async fn what_was_imported_is_there_for_the_next_instance(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (key(1, 1), key(2, 1));
    bench.write(from, Root::Configs, "config.yaml", "runtime: echo").await?;
    let archive = bench.archive(from).await?;
    bench.backend.import(to.workspace, pieces(&archive), None).await?;
    bench.start(to, Doing::Copies("config.yaml")).await?;
    assert_eq!(bench.text(to, Root::Workspace, "seen").await?, "runtime: echo");
    assert_eq!(bench.text(to, Root::Workspace, "notes/deep/er/plan.md").await?, "a plan");
    Ok(())
}

pub(super) async fn credentials_do_not_travel(bench: &mut Bench) -> Done {
    let (from, to) = (key(1, 1), key(2, 1));
    let spec = bench.spec(from, Doing::Writes("x"));
    let credential = spec.credential.as_ref().expect("it has one").reveal().to_owned();
    bench.start_as(spec, Doing::Writes("x")).await?;
    bench.text(from, Root::Workspace, "note").await?;
    let archive = bench.archive(from).await?;
    assert!(!String::from_utf8_lossy(&archive).contains(&credential));
    bench.backend.import(to.workspace, pieces(&archive), None).await?;
    assert_eq!(kind(bench.read(to, Root::Configs, ".auth_token").await), Some(ErrorKind::Missing));
    Ok(())
}
