//! Stopping, destroying, and what ends by itself.

use std::time::Duration;

use ligand_domain::instance::Seen;
use ligand_server::backend::Root;

use crate::bench::{Bench, Doing, Done, GRACE};

pub(crate) async fn ending_what_was_never_started_is_success(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.backend.stop(key, GRACE).await?;
    bench.backend.destroy(key).await?;
    bench.backend.erase(key.workspace).await?;
    same!(bench.seen(key).await?, Seen::Gone);
    same!(bench.owned().await?, []);
    Ok(())
}

pub(crate) async fn stopping_twice_is_stopping_once(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    let mut seen = Vec::new();
    for _ in 0..2 {
        bench.backend.stop(key, GRACE).await?;
        seen.push(bench.seen(key).await?);
    }
    holds!(matches!(seen[0], Seen::Stopped(_)), "{seen:?}");
    same!(seen[0], seen[1]);
    Ok(())
}

pub(crate) async fn destroying_twice_is_destroying_once(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.backend.stop(key, GRACE).await?;
    for _ in 0..2 {
        bench.backend.destroy(key).await?;
        same!(bench.seen(key).await?, Seen::Gone);
        same!(bench.backend.find(key).await?, None);
        same!(bench.owned().await?, []);
    }
    Ok(())
}

pub(crate) async fn two_ends_at_once_are_one(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    let stop = || bench.backend.stop(key, GRACE);
    let (first, second) = tokio::join!(stop(), stop());
    first.and(second)?;
    let destroy = || bench.backend.destroy(key);
    let (first, second) = tokio::join!(destroy(), destroy());
    first.and(second)?;
    same!(bench.seen(key).await?, Seen::Gone);
    Ok(())
}

pub(crate) async fn destroying_what_runs_ends_it(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.backend.destroy(key).await?;
    same!(bench.seen(key).await?, Seen::Gone);
    same!(bench.owned().await?, []);
    Ok(())
}

pub(crate) async fn a_stubborn_instance_is_ended_firmly(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Stubborn).await?;
    bench.backend.stop(key, Duration::from_millis(200)).await?;
    holds!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    Ok(())
}

pub(crate) async fn what_stopped_is_listed_until_it_is_destroyed(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.backend.stop(key, GRACE).await?;
    same!(bench.owned().await?, [key]);
    bench.backend.destroy(key).await?;
    same!(bench.owned().await?, []);
    Ok(())
}

pub(crate) async fn ending_an_old_generation_leaves_the_new_one(bench: &mut Bench) -> Done {
    let (old, new) = (bench.key(1, 1), bench.key(1, 2));
    bench.start(old, Doing::Waits).await?;
    bench.start(new, Doing::Waits).await?;
    bench.backend.stop(old, GRACE).await?;
    bench.backend.destroy(old).await?;
    same!((bench.seen(old).await?, bench.seen(new).await?), (Seen::Gone, Seen::Running));
    same!(bench.owned().await?, [new]);
    Ok(())
}

pub(crate) async fn an_exit_is_seen_with_its_code(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Exits("over", 3)).await?;
    let exit = bench.ended(key).await?;
    same!((exit.code, exit.signal), (Some(3), None));
    Ok(())
}

pub(crate) async fn success_is_an_exit_too(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Exits("done", 0)).await?;
    same!(bench.ended(key).await?.code, Some(0));
    Ok(())
}

pub(crate) async fn the_reason_of_an_exit_is_kept(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Exits("error: no such model", 2)).await?;
    let exit = bench.ended(key).await?;
    same!(exit.said.as_deref(), Some("error: no such model"));
    same!(exit.to_string(), "exited with code 2: error: no such model");
    Ok(())
}

pub(crate) async fn an_exit_is_pushed(bench: &mut Bench) -> Done {
    let (ends, stays) = (bench.key(1, 1), bench.key(2, 1));
    bench.start(stays, Doing::Waits).await?;
    bench.start(ends, Doing::Exits("over", 1)).await?;
    same!(bench.pushed().await?, ends);
    holds!(matches!(bench.seen(ends).await?, Seen::Stopped(_)));
    Ok(())
}

pub(crate) async fn a_killed_instance_is_pushed_with_its_signal(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.kill(key).await?;
    same!(bench.pushed().await?, key);
    let exit = bench.ended(key).await?;
    same!((exit.code, exit.signal), (None, Some(9)));
    Ok(())
}

pub(crate) async fn what_ended_is_found_and_not_started_again(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let started = bench.start(key, Doing::Exits("over", 4)).await?;
    let exit = bench.ended(key).await?;
    same!(bench.backend.ensure(bench.spec(key, Doing::Waits)).await?, started);
    same!(bench.seen(key).await?, Seen::Stopped(exit));
    Ok(())
}

pub(crate) async fn what_was_destroyed_can_be_started_again(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Exits("over", 4)).await?;
    bench.ended(key).await?;
    bench.backend.destroy(key).await?;
    bench.start(key, Doing::Writes("again")).await?;
    same!(bench.seen(key).await?, Seen::Running);
    same!(bench.text(key, Root::Workspace, "note").await?, "again");
    Ok(())
}
