//! The admission table, line by line, and the laws that no combination of facts may break.

use ligand_domain::admission::{
    Action, Bootstrap, Call, Decision, Facts, Line, Newest, Presented, Refusal, Standing,
};
use ligand_domain::credential::{Credential, Kind, Passport, PassportState, State};
use ligand_domain::guards::Guards;
use ligand_domain::id::{CredentialId, Generation};
use ligand_domain::time::Timestamp;
use proptest::prelude::*;

fn decide(facts: &Facts) -> Decision {
    ligand_domain::admission::decide(facts, Guards::ON)
}

fn g(n: i64) -> Generation {
    Generation::new(n)
}

fn standing() -> Standing {
    Standing {
        removed: false,
        current: g(2),
        newest: g(2),
        newest_is: Newest::Current,
        live: true,
        bootstrap: Bootstrap::Open,
        opened: false,
        just_revoked: false,
        managed: true,
    }
}

fn held(generation: i64, state: State) -> Credential {
    let used = matches!(state, State::Active | State::Superseded);
    let id = CredentialId::from_random([3; 16]);
    Credential {
        id,
        kind: Kind::Instance,
        generation: Some(g(generation)),
        state,
        used,
        newer_used: false,
    }
}

fn facts(call: Call, workspace: Standing, presented: Presented) -> Facts {
    Facts {
        call,
        workspace: Some(workspace),
        purged: false,
        presented,
        replayed: None,
        open_registration: false,
    }
}

fn register(workspace: Standing, presented: Presented) -> Decision {
    decide(&facts(Call::Register, workspace, presented))
}

fn refusal(decision: Decision) -> Refusal {
    match decision {
        Decision::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn the_current_agent_is_admitted_and_its_first_use_activates() {
    let pending = Presented::Credential(held(2, State::Pending));
    let active = Presented::Credential(held(2, State::Active));
    for (call, presented, activates) in [
        (Call::Register, pending, true),
        (Call::Heartbeat, pending, true),
        (Call::UpdateCard, pending, false),
        (Call::Heartbeat, active, false),
    ] {
        let decision = decide(&facts(call, standing(), presented));
        assert_eq!(decision, Decision::Current { generation: g(2), activates }, "{call:?}");
    }
}

#[test]
fn a_planned_generation_takes_over_at_its_first_use() {
    let workspace = Standing { newest: g(3), newest_is: Newest::Planned, ..standing() };
    let presented = Presented::Credential(held(3, State::Pending));
    let decision = decide(&facts(Call::Heartbeat, workspace, presented));
    assert_eq!(decision, Decision::TakesOver { generation: g(3), mints: false });
    let card = decide(&facts(Call::UpdateCard, workspace, presented));
    assert_eq!(card, Decision::Early { generation: g(3) });
    let until = Timestamp::NEVER;
    let passport =
        Presented::Passport(Passport { generation: g(3), state: PassportState::Open, until });
    assert_eq!(
        register(workspace, passport),
        Decision::TakesOver { generation: g(3), mints: true }
    );
}

#[test]
fn an_abandoned_generation_is_never_admitted_again() {
    let workspace = Standing { newest: g(3), newest_is: Newest::Abandoned, ..standing() };
    for state in [State::Pending, State::Active, State::Lapsed, State::Revoked] {
        let told =
            refusal(register(workspace, Presented::Credential(held(3, state)))).told.unwrap();
        assert_eq!(told.action, Action::Exit, "{state:?}");
    }
}

#[test]
fn a_candidate_is_known_and_changes_nothing() {
    let workspace = Standing { newest: g(3), newest_is: Newest::Candidate, ..standing() };
    for state in [State::Pending, State::Active] {
        let decision =
            decide(&facts(Call::Heartbeat, workspace, Presented::Credential(held(3, state))));
        assert_eq!(decision, Decision::Candidate { generation: g(3), mints: false });
    }
}

#[test]
fn the_loser_of_a_race_is_re_enrolled_in_its_own_generation() {
    let nothing_live = Standing { live: false, ..standing() };
    for state in [State::Revoked, State::Lapsed] {
        let presented = Presented::Credential(held(2, state));
        assert_eq!(register(nothing_live, presented), Decision::ReEnrols { generation: g(2) });
        // Something live remains: never.
        assert!(matches!(register(standing(), presented), Decision::Refused(_)));
        // Sealed: never, unless opened by a person.
        let sealed = Standing { bootstrap: Bootstrap::Sealed, ..nothing_live };
        assert!(matches!(register(sealed, presented), Decision::Refused(_)));
        let opened = Standing { opened: true, ..sealed };
        assert_eq!(register(opened, presented), Decision::ReEnrols { generation: g(2) });
    }
    // Superseded: never.
    let superseded = Presented::Credential(held(2, State::Superseded));
    assert!(matches!(register(nothing_live, superseded), Decision::Refused(_)));
    // A heartbeat never bootstraps.
    let beat = decide(&facts(
        Call::Heartbeat,
        nothing_live,
        Presented::Credential(held(2, State::Revoked)),
    ));
    assert_eq!(refusal(beat).told.unwrap().action, Action::Register);
}

#[test]
fn a_lost_reply_is_answered_again_until_its_credential_was_used() {
    let lost = held(2, State::Pending);
    let asked = |replayed, presented| {
        decide(&Facts { replayed, ..facts(Call::Register, standing(), presented) })
    };
    let again = Decision::Remint { lost: lost.id, generation: g(2) };
    assert_eq!(asked(Some(lost), Presented::Nothing), again);
    assert_eq!(asked(Some(lost), Presented::Stranger), again);
    let used = Credential { used: true, state: State::Active, ..lost };
    assert!(matches!(asked(Some(used), Presented::Nothing), Decision::Refused(_)));
    let older = Credential { generation: Some(g(1)), ..lost };
    assert!(matches!(asked(Some(older), Presented::Nothing), Decision::Refused(_)));
}

#[test]
fn rg_06_07_bootstrap_only_where_nothing_lives() {
    let fresh = Standing { current: g(0), newest: g(0), live: false, managed: false, ..standing() };
    let first = Decision::Bootstraps { generation: g(1), abandons: None };
    assert_eq!(register(fresh, Presented::Nothing), first);
    assert_eq!(register(fresh, Presented::Stranger), first);
    assert_eq!(refusal(register(standing(), Presented::Nothing)).line, Line::Nothing);
    let planned = Standing { newest: g(3), newest_is: Newest::Planned, live: false, ..standing() };
    let decision = register(planned, Presented::Nothing);
    assert_eq!(decision, Decision::Bootstraps { generation: g(4), abandons: Some(g(3)) });
}

#[test]
fn a_superseded_instance_is_told_to_exit_only_where_a_backend_runs_it() {
    let old = Presented::Credential(held(1, State::Superseded));
    assert_eq!(refusal(register(standing(), old)).told.unwrap().action, Action::Exit);
    let external = Standing { managed: false, ..standing() };
    assert_eq!(refusal(register(external, old)).told.unwrap().action, Action::Register);
    let newer = Credential { newer_used: true, ..held(2, State::Superseded) };
    let told = refusal(register(standing(), Presented::Credential(newer))).told.unwrap();
    assert_eq!(told.action, Action::RereadCredential);
}

#[test]
fn a_removed_workspace_tells_its_former_holders_and_nobody_else() {
    let removed = Standing { removed: true, live: false, ..standing() };
    let told =
        refusal(register(removed, Presented::Credential(held(2, State::Revoked)))).told.unwrap();
    assert_eq!(told.action, Action::Exit);
    assert_eq!(refusal(register(removed, Presented::Stranger)).told, None);
    assert_eq!(refusal(register(removed, Presented::Nothing)).told, None);
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let newest = prop_oneof![
        Just(Newest::Current),
        Just(Newest::Planned),
        Just(Newest::Candidate),
        Just(Newest::Abandoned)
    ];
    (any::<[bool; 6]>(), 0..4i64, newest).prop_map(|(flags, current, newest_is)| {
        let [removed, live, sealed, opened, just_revoked, managed] = flags;
        let newest = if newest_is == Newest::Current { current } else { current + 1 };
        Standing {
            removed,
            current: g(current),
            newest: g(newest),
            newest_is,
            live,
            bootstrap: if sealed { Bootstrap::Sealed } else { Bootstrap::Open },
            opened,
            just_revoked,
            managed,
        }
    })
}

fn any_credential() -> impl Strategy<Value = Credential> {
    let state = prop_oneof![
        Just(State::Pending),
        Just(State::Active),
        Just(State::Superseded),
        Just(State::Revoked),
        Just(State::Lapsed)
    ];
    (0..6i64, state, any::<bool>(), any::<bool>()).prop_map(
        |(generation, state, api, newer_used)| {
            let kind = if api { Kind::Api } else { Kind::Instance };
            Credential { kind, newer_used, ..held(generation, state) }
        },
    )
}

fn any_presented() -> impl Strategy<Value = Presented> {
    prop_oneof![
        Just(Presented::Nothing),
        Just(Presented::Stranger),
        any_credential().prop_map(Presented::Credential),
        (0..6i64).prop_map(|n| Presented::Passport(Passport {
            generation: g(n),
            state: PassportState::Open,
            until: Timestamp::NEVER,
        })),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![Just(Call::Register), Just(Call::Heartbeat), Just(Call::UpdateCard)]
}

proptest! {
    #[test]
    fn law_3_strangers_get_in_only_by_an_open_bootstrap(workspace in any_standing(), call in any_call(), bearer: bool) {
        let presented = if bearer { Presented::Stranger } else { Presented::Nothing };
        match decide(&facts(call, workspace, presented)) {
            Decision::Bootstraps { .. } => {
                prop_assert!(call == Call::Register && !workspace.live && !workspace.removed);
                prop_assert!(workspace.bootstrap == Bootstrap::Open || workspace.opened);
            }
            Decision::Refused(refusal) => {
                prop_assert_eq!(refusal.told, None, "strangers learn nothing");
                prop_assert_eq!(refusal.bearer, bearer);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn law_1_no_older_generation_is_ever_admitted(workspace in any_standing(), call in any_call(), presented in any_presented()) {
        let admitted = match decide(&facts(call, workspace, presented)) {
            Decision::Current { generation, .. } | Decision::TakesOver { generation, .. }
            | Decision::Early { generation } | Decision::Candidate { generation, .. }
            | Decision::ReEnrols { generation } | Decision::Bootstraps { generation, .. } => generation,
            Decision::Remint { .. } | Decision::Api { .. } | Decision::Creates | Decision::Refused(_) => return Ok(()),
        };
        prop_assert!(!workspace.removed, "a removed workspace admits nobody");
        prop_assert!(admitted >= workspace.current);
        prop_assert!(admitted <= workspace.newest.next());
    }

    #[test]
    fn a_heartbeat_never_mints(workspace in any_standing(), presented in any_presented()) {
        let decision = decide(&facts(Call::Heartbeat, workspace, presented));
        let mints = matches!(decision, Decision::Remint { .. } | Decision::ReEnrols { .. } | Decision::Bootstraps { .. }
            | Decision::Creates | Decision::TakesOver { mints: true, .. } | Decision::Candidate { mints: true, .. });
        prop_assert!(!mints, "{:?}", decision);
    }

    #[test]
    fn exit_is_said_only_where_a_successor_or_nothing_remains(workspace in any_standing(), call in any_call(), presented in any_presented()) {
        if let Decision::Refused(Refusal { told: Some(told), .. }) = decide(&facts(call, workspace, presented))
            && told.action == Action::Exit
        {
            prop_assert!(workspace.removed || workspace.managed);
        }
    }
}
