//! Instances outlive servers.

use ligand_domain::instance::Seen;

use super::bench::{Bench, Doing, Done, GRACE, key};

pub(super) async fn the_list_is_the_same_after_a_restart(bench: &mut Bench) -> Done {
    let (runs, stopped) = (key(1, 2), key(2, 1));
    for key in [runs, stopped] {
        bench.start(key, Doing::Waits).await?;
    }
    bench.backend.stop(stopped, GRACE).await?;
    bench.restart().await?;
    let mut listed = bench.backend.list_owned().await?;
    listed.sort();
    let mut expected = [runs, stopped];
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(bench.seen(runs).await?, Seen::Running);
    assert!(matches!(bench.seen(stopped).await?, Seen::Stopped(_)));
    Ok(())
}

pub(super) async fn a_start_after_a_restart_finds_what_runs(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    let started = bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    assert_eq!(bench.backend.find(key).await?, Some(started.clone()));
    assert_eq!(bench.backend.ensure(bench.spec(key, Doing::Waits)).await?, started);
    assert_eq!(bench.backend.list_owned().await?, [key]);
    Ok(())
}

pub(super) async fn what_ends_after_a_restart_is_pushed(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    assert_eq!(bench.seen(key).await?, Seen::Running);
    bench.ground.kill(key);
    assert_eq!(bench.pushed().await, key);
    assert!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    Ok(())
}

pub(super) async fn what_ended_while_no_server_ran_is_pushed(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.ground.kill(key);
    bench.ended(key).await?;
    bench.restart().await?;
    assert_eq!(bench.pushed().await, key);
    assert!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    Ok(())
}

pub(super) async fn what_an_earlier_server_started_can_be_ended(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    bench.backend.stop(key, GRACE).await?;
    assert!(matches!(bench.seen(key).await?, Seen::Stopped(_)));
    bench.restart().await?;
    bench.backend.destroy(key).await?;
    assert_eq!(bench.seen(key).await?, Seen::Gone);
    Ok(())
}

pub(super) async fn recovering_twice_is_recovering_once(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Waits).await?;
    bench.restart().await?;
    bench.backend.recover().await?;
    assert_eq!(bench.backend.list_owned().await?, [key]);
    bench.ground.kill(key);
    assert_eq!(bench.pushed().await, key);
    Ok(())
}

pub(super) async fn a_restart_forgets_no_exit(bench: &mut Bench) -> Done {
    let key = key(1, 1);
    bench.start(key, Doing::Exits("error: out of luck", 7)).await?;
    let exit = bench.ended(key).await?;
    bench.restart().await?;
    assert_eq!(bench.seen(key).await?, Seen::Stopped(exit));
    Ok(())
}
