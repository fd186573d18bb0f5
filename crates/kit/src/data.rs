//! A workspace's data: it outlives instances, and travels whole or not at all.

use bytes::Bytes;
use ligand_server::backend::{ErrorKind, Root};

use crate::bench::{Bench, Doing, Done, GRACE, kind, pieces, refused};

/// Data with what archives like to lose: an empty file, an odd name, a deep one, one that is longer than a block.
async fn furnish(bench: &Bench, of: u8) -> Done {
    let key = bench.key(of, 1);
    bench.write(key, Root::Workspace, "notes/deep/er/plan.md", "a plan").await?;
    bench.write(key, Root::Workspace, "empty", "").await?;
    bench.write(key, Root::Home, ".odd name é", "odd").await?;
    let long = Bytes::from(vec![b'x'; 70_001]);
    bench.write(key, Root::Workspace, "long.bin", long).await
}

pub(crate) async fn data_outlives_its_instance(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    bench.start(old, Doing::Writes("kept")).await?;
    same!(bench.text(old, Root::Workspace, "note").await?, "kept");
    bench.backend.stop(old, GRACE).await?;
    bench.backend.destroy(old).await?;
    bench.start(new, Doing::Waits).await?;
    same!(bench.text(new, Root::Workspace, "note").await?, "kept");
    Ok(())
}

pub(crate) async fn erased_data_is_gone_and_erasing_twice_is_success(bench: &mut Bench) -> Done {
    let (gone, stays) = (bench.key(1, 1), bench.key(2, 1));
    furnish(bench, 1).await?;
    furnish(bench, 2).await?;
    for _ in 0..2 {
        bench.backend.erase(gone.workspace).await?;
    }
    same!(kind(bench.read(gone, Root::Workspace, "empty").await)?, Some(ErrorKind::Missing));
    same!(bench.read(stays, Root::Home, ".odd name é").await?, "odd");
    Ok(())
}

pub(crate) async fn whose_data_is_there_is_listed(bench: &mut Bench) -> Done {
    let (idle, runs) = (bench.key(1, 1), bench.key(2, 1));
    bench.write(idle, Root::Workspace, "note", "x").await?;
    bench.start(runs, Doing::Writes("x")).await?;
    bench.text(runs, Root::Workspace, "note").await?;
    bench.backend.destroy(runs).await?;
    bench.restart().await?;
    let mut listed = bench.data().await?;
    listed.sort();
    same!(listed, [idle.workspace, runs.workspace]);
    bench.backend.erase(idle.workspace).await?;
    same!(bench.data().await?, [runs.workspace]);
    Ok(())
}

pub(crate) async fn what_is_imported_is_what_was_exported(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (bench.key(1, 1), bench.key(2, 1));
    let (archive, digest) = (bench.archive(from).await?, bench.digest(from).await?);
    let came = bench.import(to, pieces(&archive), Some(digest.digest.clone())).await?;
    same!(came, digest);
    same!(bench.digest(to).await?, digest);
    same!(bench.read(to, Root::Workspace, "notes/deep/er/plan.md").await?, "a plan");
    same!(bench.read(to, Root::Workspace, "empty").await?, "");
    same!(bench.read(to, Root::Home, ".odd name é").await?, "odd");
    same!(bench.read(to, Root::Workspace, "long.bin").await?.len(), 70_001);
    // What left is still there.
    same!(bench.digest(from).await?, digest);
    Ok(())
}

pub(crate) async fn an_archive_with_another_digest_changes_nothing(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (bench.key(1, 1), bench.key(2, 1));
    let archive = bench.archive(from).await?;
    bench.write(to, Root::Workspace, "mine", "mine").await?;
    let before = bench.digest(to).await?;
    let wrong = Some("0".repeat(64));
    refused(bench.import(to, pieces(&archive), wrong).await)?;
    same!(bench.digest(to).await?, before);
    same!(bench.read(to, Root::Workspace, "mine").await?, "mine");
    Ok(())
}

pub(crate) async fn what_is_no_archive_changes_nothing(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let key = bench.key(1, 1);
    let (archive, before) = (bench.archive(key).await?, bench.digest(key).await?);
    let half = archive.slice(..archive.len() / 2);
    for bad in [half, Bytes::from(vec![b'z'; 5000])] {
        refused(bench.import(key, pieces(&bad), None).await)?;
        same!(bench.digest(key).await?, before);
    }
    // A network that breaks off.
    let whole = pieces(&archive);
    let broken = futures_util::StreamExt::chain(
        futures_util::StreamExt::take(whole, 3),
        futures_util::stream::iter([Err(std::io::Error::other("reset by peer"))]),
    );
    refused(bench.import(key, Box::pin(broken), None).await)?;
    same!(bench.digest(key).await?, before);
    Ok(())
}

pub(crate) async fn an_import_takes_the_place_of_what_was_there(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (bench.key(1, 1), bench.key(2, 1));
    bench.write(to, Root::Workspace, "older", "older").await?;
    let archive = bench.archive(from).await?;
    for _ in 0..2 {
        let came = bench.import(to, pieces(&archive), None).await?;
        same!(came, bench.digest(from).await?);
    }
    same!(kind(bench.read(to, Root::Workspace, "older").await)?, Some(ErrorKind::Missing));
    Ok(())
}

pub(crate) async fn a_digest_tells_one_content_from_another(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let key = bench.key(1, 1);
    let digest = || bench.digest(key);
    let first = digest().await?;
    same!(digest().await?, first, "nothing was changed");
    holds!(first.digest.len() == 64 && first.digest.bytes().all(|it| it.is_ascii_hexdigit()));
    bench.write(key, Root::Workspace, "empty", "!").await?;
    let second = digest().await?;
    differs!(second.digest, first.digest, "one byte");
    same!(second.bytes, first.bytes + 1);
    bench.remove(key, Root::Workspace, "empty").await?;
    bench.write(key, Root::Workspace, "full", "!").await?;
    differs!(digest().await?.digest, second.digest, "one name");
    Ok(())
}

pub(crate) async fn the_same_data_has_the_same_digest_on_other_ground(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (key, stranger) = (bench.key(1, 1), bench.ground.stranger()?);
    let (archive, digest) = (bench.archive(key).await?, bench.digest(key).await?);
    stranger.import(key.workspace, pieces(&archive), Some(digest.digest.clone())).await?;
    same!(stranger.digest(key.workspace).await?, digest);
    Ok(stranger.erase(key.workspace).await?)
}

pub(crate) async fn what_was_imported_is_there_for_the_next_instance(bench: &mut Bench) -> Done {
    furnish(bench, 1).await?;
    let (from, to) = (bench.key(1, 1), bench.key(2, 1));
    bench.write(from, Root::Configs, "config.yaml", "runtime: echo").await?;
    let archive = bench.archive(from).await?;
    bench.import(to, pieces(&archive), None).await?;
    bench.start(to, Doing::Copies("config.yaml")).await?;
    same!(bench.text(to, Root::Workspace, "seen").await?, "runtime: echo");
    same!(bench.text(to, Root::Workspace, "notes/deep/er/plan.md").await?, "a plan");
    Ok(())
}

pub(crate) async fn credentials_do_not_travel(bench: &mut Bench) -> Done {
    let (from, to) = (bench.key(1, 1), bench.key(2, 1));
    let spec = bench.spec(from, Doing::Writes("x"));
    let credential = Bench::credential(&spec)?;
    bench.start_as(spec, Doing::Writes("x")).await?;
    bench.text(from, Root::Workspace, "note").await?;
    let archive = bench.archive(from).await?;
    holds!(!String::from_utf8_lossy(&archive).contains(&credential));
    bench.import(to, pieces(&archive), None).await?;
    same!(kind(bench.read(to, Root::Configs, ".auth_token").await)?, Some(ErrorKind::Missing));
    Ok(())
}
