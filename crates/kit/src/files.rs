//! Single files of a workspace.

use std::collections::BTreeSet;

use ligand_server::backend::{ErrorKind, Root};

use crate::bench::{Bench, Doing, Done, at, kind};

pub(crate) async fn a_file_that_was_written_is_read(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.write(key, Root::Workspace, "a/b/c.txt", "content").await?;
    same!(bench.read(key, Root::Workspace, "a/b/c.txt").await?, "content");
    bench.write(key, Root::Workspace, "empty", "").await?;
    same!(bench.read(key, Root::Workspace, "empty").await?, "");
    Ok(())
}

pub(crate) async fn a_file_that_is_not_there_is_missing(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.write(key, Root::Workspace, "there/it", "is").await?;
    for path in ["nothing", "there/nothing", "nothing/it"] {
        same!(
            kind(bench.read(key, Root::Workspace, path).await)?,
            Some(ErrorKind::Missing),
            "{path}"
        );
    }
    let listed = bench.list(key, at(Root::Workspace, "nothing"), 1).await;
    same!(kind(listed)?, Some(ErrorKind::Missing));
    Ok(())
}

async fn listed(bench: &Bench, path: &str, depth: u8) -> Done<BTreeSet<(String, u64, bool)>> {
    let found = bench.list(bench.key(1, 1), at(Root::Workspace, path), depth).await?;
    let told = found.into_iter().map(|it| (it.path.display().to_string(), it.size, it.dir));
    Ok(told.collect())
}

pub(crate) async fn files_are_listed_as_deep_as_asked(bench: &mut Bench) -> Done {
    for path in ["top", "a/one", "a/b/two", "a/b/c/three"] {
        bench.write(bench.key(1, 1), Root::Workspace, path, "1234").await?;
    }
    let set = |all: &[(&str, u64, bool)]| -> BTreeSet<(String, u64, bool)> {
        all.iter().map(|(path, size, dir)| ((*path).to_owned(), *size, *dir)).collect()
    };
    let one = set(&[("top", 4, false), ("a", 0, true)]);
    same!(listed(bench, "", 1).await?, one);
    let two = set(&[("top", 4, false), ("a", 0, true), ("a/one", 4, false), ("a/b", 0, true)]);
    same!(listed(bench, "", 2).await?, two);
    // Relative to what was asked about.
    let below = set(&[("two", 4, false), ("c", 0, true), ("c/three", 4, false)]);
    same!(listed(bench, "a/b", 5).await?, below);
    Ok(())
}

pub(crate) async fn what_is_removed_is_gone_and_removing_nothing_is_success(
    bench: &mut Bench,
) -> Done {
    let key = bench.key(1, 1);
    for path in ["a/one", "a/b/two", "ab"] {
        bench.write(key, Root::Workspace, path, "x").await?;
    }
    for path in ["a", "a", "never/there"] {
        bench.remove(key, Root::Workspace, path).await?;
    }
    for path in ["a/one", "a/b/two"] {
        same!(
            kind(bench.read(key, Root::Workspace, path).await)?,
            Some(ErrorKind::Missing),
            "{path}"
        );
    }
    same!(bench.read(key, Root::Workspace, "ab").await?, "x");
    Ok(())
}

pub(crate) async fn writing_replaces_the_whole_file(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    for content in ["a long content", "short", ""] {
        bench.write(key, Root::Home, "file", content).await?;
        same!(bench.read(key, Root::Home, "file").await?, content);
    }
    Ok(())
}

pub(crate) async fn the_directories_of_a_workspace_are_told_apart(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let roots =
        [(Root::Configs, "c"), (Root::Workspace, "w"), (Root::Home, "h"), (Root::Plugins, "p")];
    for (root, content) in roots {
        bench.write(key, root, "same", content).await?;
    }
    for (root, content) in roots {
        same!(bench.read(key, root, "same").await?, content);
    }
    Ok(())
}

pub(crate) async fn files_of_workspaces_are_told_apart(bench: &mut Bench) -> Done {
    let (one, other) = (bench.key(1, 1), bench.key(2, 1));
    bench.write(one, Root::Workspace, "same", "one").await?;
    bench.write(other, Root::Workspace, "same", "other").await?;
    bench.remove(other, Root::Workspace, "same").await?;
    same!(bench.read(one, Root::Workspace, "same").await?, "one");
    Ok(())
}

pub(crate) async fn an_instance_finds_what_was_written_and_what_it_writes_is_found(
    bench: &mut Bench,
) -> Done {
    let key = bench.key(1, 1);
    bench.write(key, Root::Configs, "given", "by the platform").await?;
    bench.start(key, Doing::Copies("given")).await?;
    same!(bench.text(key, Root::Workspace, "seen").await?, "by the platform");
    let names: Vec<_> = listed(bench, "", 1).await?.into_iter().map(|(name, ..)| name).collect();
    holds!(names.contains(&"seen".to_owned()), "{names:?}");
    Ok(())
}

pub(crate) async fn files_are_written_while_nothing_runs(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.backend.destroy(key).await?;
    bench.write(key, Root::Workspace, "later", "x").await?;
    same!(bench.read(key, Root::Workspace, "later").await?, "x");
    bench.restart().await?;
    same!(bench.read(key, Root::Workspace, "later").await?, "x");
    Ok(())
}
