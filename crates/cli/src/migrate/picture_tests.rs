use super::*;

fn at(second: f64) -> String {
    now(second).to_string()
}

fn now(second: f64) -> Timestamp {
    Timestamp::from_micros((second * 1e6) as i64)
}

fn entered(phases: &[(&str, f64)]) -> Vec<MigrationPhase> {
    let phase = |(phase, second): &(&str, f64)| MigrationPhase {
        phase: (*phase).to_owned(),
        at: at(*second),
    };
    phases.iter().map(phase).collect()
}

fn migration(state: &str, phase: &str, phases: &[(&str, f64)]) -> Migration {
    Migration {
        workspace: "demo".into(),
        from: "west".into(),
        to: "east".into(),
        source_generation: 3,
        target_generation: Some(4),
        state: state.into(),
        phase: phase.into(),
        phases: entered(phases),
        started_at: at(0.0),
        ..Migration::default()
    }
}

const HALF_WAY: [(&str, f64); 3] = [("prepare", 0.0), ("provision", 0.02), ("pre-copy", 1.12)];
const ALL: [(&str, f64); 12] = [
    ("prepare", 0.0),
    ("provision", 0.02),
    ("pre-copy", 1.12),
    ("hold", 12.0),
    ("quiesce", 12.01),
    ("restore", 12.1),
    ("activate", 12.3),
    ("probe", 12.5),
    ("cut-over", 12.52),
    ("release", 12.53),
    ("retire", 12.54),
    ("migrated", 72.6),
];

#[test]
fn one_that_copies_shows_how_far_it_is() {
    let it = Migration {
        bytes_total: Some(200 << 20),
        bytes_done: 104 << 20,
        waits_for: Some("the first copy of the data".into()),
        deadline_at: Some(at(14_400.0)),
        ..migration("running", "pre-copy", &HALF_WAY)
    };
    insta::assert_snapshot!(draw(&it, now(5.3)), @"
    demo: west → east (generation 3 → 4), under way for 5.3 s
      ✓ prepare         20 ms  a generation and a passport for the target
      ✓ provision       1.1 s  the target starts, and stands by
      ▶ pre-copy        4.2 s  ████████████░░░░░░░░░░░░  52 %  104 MiB of 200 MiB
      · hold                   new messages wait, turns in flight end
      · quiesce                the source stands by; what changed since is copied
      · restore                the target gets the data, and its digest is compared
      · activate               the target gets its secrets, and its program starts
      · probe                  a turn on the target
      · cut-over               the target becomes the workspace
      ────────────
      · release                messages go on, to the target
      · retire                 the source goes, after its grace
      waits for   the first copy of the data; given up in 3h
    ");
}

#[test]
fn one_that_is_over_says_what_it_cost() {
    let it = Migration {
        without_service_ms: Some(541),
        url_after: Some("http://127.0.0.1:4001".into()),
        ended_at: Some(at(72.6)),
        ..migration("migrated", "retire", &ALL)
    };
    insta::assert_snapshot!(draw(&it, now(99.0)), @"
    demo: west → east (generation 3 → 4), migrated in 1 min 12 s
      ✓ prepare         20 ms  a generation and a passport for the target
      ✓ provision       1.1 s  the target starts, and stands by
      ✓ pre-copy       10.9 s  data is copied while the source serves
      ✓ hold            10 ms  new messages wait, turns in flight end
      ✓ quiesce         90 ms  the source stands by; what changed since is copied
      ✓ restore        200 ms  the target gets the data, and its digest is compared
      ✓ activate       200 ms  the target gets its secrets, and its program starts
      ✓ probe           20 ms  a turn on the target
      ✓ cut-over        10 ms  the target becomes the workspace
      ────────────
      ✓ release         10 ms  messages go on, to the target
      ✓ retire      1 min 0 s  the source goes, after its grace
      no service  for 541 ms
      serves      on east, at http://127.0.0.1:4001
    ");
    let last = it.phases.last().unwrap();
    assert_eq!(
        line(&it, last),
        "00:01:12.600  migrated     demo went from west to east, and is generation 4; no turn was served for 541 ms"
    );
}

#[test]
fn one_that_was_rolled_back_shows_where_and_why() {
    let cause = "the target did not complete a turn: it answered 500";
    let mut phases = ALL[..8].to_vec();
    phases.extend([("undoing", 42.5), ("rolled-back", 42.9)]);
    let it = Migration {
        cause: Some(cause.into()),
        without_service_ms: Some(30_900),
        ended_at: Some(at(42.9)),
        ..migration("rolled-back", "probe", &phases)
    };
    insta::assert_snapshot!(draw(&it, now(99.0)), @"
    demo: west → east (generation 3 → 4), rolled back after 42.9 s
      ✓ prepare         20 ms  a generation and a passport for the target
      ✓ provision       1.1 s  the target starts, and stands by
      ✓ pre-copy       10.9 s  data is copied while the source serves
      ✓ hold            10 ms  new messages wait, turns in flight end
      ✓ quiesce         90 ms  the source stands by; what changed since is copied
      ✓ restore        200 ms  the target gets the data, and its digest is compared
      ✓ activate       200 ms  the target gets its secrets, and its program starts
      ✗ probe          30.0 s  the target did not complete a turn: it answered 500
      · cut-over               the target becomes the workspace
      ────────────
      · release                messages go on, to the target
      · retire                 the source goes, after its grace
      no service  for 30.9 s
      cause       the target did not complete a turn: it answered 500
      serves      on west as before, in generation 3
    ");
    let lines: Vec<String> = it.phases[7..].iter().map(|entered| line(&it, entered)).collect();
    assert_eq!(
        lines,
        [
            "00:00:12.500  probe        a turn on the target",
            "00:00:42.500  undoing      the target did not complete a turn: it answered 500",
            "00:00:42.900  rolled-back  demo stays on west: the target did not complete a turn: it answered 500; no turn was served for 30.9 s",
        ]
    );
}

#[test]
fn one_that_waits_says_for_what_and_what_went_wrong() {
    let it = Migration {
        held_messages: 2,
        waits_for: Some("the target to have the data".into()),
        last_error: Some("connection\nreset".into()),
        next_attempt_at: Some(at(15.0)),
        ..migration("running", "restore", &ALL[..6])
    };
    let drawn = draw(&it, now(13.0));
    let foot: Vec<&str> = drawn.lines().skip(13).collect();
    assert_eq!(
        foot,
        [
            "  waits for   the target to have the data",
            "  went wrong  connection reset; again in 2s",
            "  messages    2 held",
        ]
    );
}

#[test]
fn a_phase_that_was_entered_twice_counts_both_times() {
    let phases = [("activate", 1.0), ("probe", 2.0), ("activate", 5.0), ("probe", 9.0)];
    let it = migration("running", "probe", &phases);
    assert_eq!(spent(&it, "activate", now(10.0)), Some(Duration::from_secs(5)));
    assert_eq!(spent(&it, "probe", now(10.0)), Some(Duration::from_secs(4)));
    assert_eq!(spent(&it, "cut-over", now(10.0)), None);
    assert_eq!(mark(&it, Stage::Before(Before::Activate)), Mark::Done);
}

#[test]
fn a_bar_is_full_only_at_the_end() {
    assert_eq!(bar(0, 10), format!("{}   0 %", "░".repeat(24)));
    assert_eq!(bar(999, 1_000), format!("{}░  99 %", "█".repeat(23)));
    assert_eq!(bar(10, 10), format!("{} 100 %", "█".repeat(24)));
    assert_eq!(bar(0, 0), format!("{} 100 %", "█".repeat(24)));
}
