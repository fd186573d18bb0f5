//! Instances outlive servers.

use ligand_domain::instance::Seen;

use crate::bench::{Bench, Doing, Done, GRACE};

pub(crate) async fn the_list_is_the_same_after_a_restart(bench: &mut Bench) -> Done {
    let (runs, stopped) = (bench.key(1, 2), bench.key(2, 1));
    for key in [runs, stopped] {
        bench.start(key, Doing::Waits).await?;
    }
    bench.backend.stop(stopped, GRACE).await?;
    bench.restart().await?;
    let mut listed = bench.owned().await?;
    listed.sort();
    let mut expected = [runs, stopped];
    expected.sort();
    same!(listed, expected);
    same!(bench.seen(runs).await?, Seen::Running);
    holds!(matches!(bench.seen(stopped).await?, Seen::Stopped(_)));
    Ok(())
}

pub(crate) async fn a_start_after_a_restart_finds_what_runs(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    let started = bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    same!(bench.backend.find(key).await?, Some(started.clone()));
    same!(bench.backend.ensure(bench.spec(key, Doing::Waits)).await?, started);
    same!(bench.owned().await?, [key]);
    Ok(())
}

pub(crate) async fn what_ends_after_a_restart_is_pushed(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    same!(bench.seen(key).await?, Seen::Running);
    bench.kill(key).await?;
    same!(bench.pushed().await?, key);
    holds!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    Ok(())
}

pub(crate) async fn what_ended_while_no_server_ran_is_pushed(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.kill(key).await?;
    bench.ended(key).await?;
    bench.restart().await?;
    same!(bench.pushed().await?, key);
    holds!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    Ok(())
}

pub(crate) async fn what_an_earlier_server_started_can_be_ended(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    bench.backend.stop(key, GRACE).await?;
    holds!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    bench.restart().await?;
    bench.backend.destroy(key).await?;
    same!(bench.seen(key).await?, Seen::Gone);
    Ok(())
}

pub(crate) async fn recovering_twice_is_recovering_once(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    bench.backend.recover().await?;
    same!(bench.owned().await?, [key]);
    bench.kill(key).await?;
    same!(bench.pushed().await?, key);
    Ok(())
}

pub(crate) async fn a_restart_forgets_no_exit(bench: &mut Bench) -> Done {
    let key = bench.key(1, 1);
    bench.start(key, Doing::Exits("error: out of luck", 7)).await?;
    let exit = bench.ended(key).await?;
    bench.restart().await?;
    same!(bench.seen(key).await?, Seen::Stopped(exit));
    Ok(())
}
