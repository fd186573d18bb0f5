//! The admission table, line by line, and the laws that no combination of facts may break.

use ligand_domain::admission::{
    Action, Bootstrap, Call, Code, Decision, Facts, Line, Newcomer, Newest, Presented, Refusal,
    Standing, just_revoked,
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
        newcomer: Newcomer::Proves,
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
        compat: false,
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
    let taken = register(workspace, passport(3, PassportState::Open));
    assert_eq!(taken, Decision::TakesOver { generation: g(3), mints: true });
}

fn passport(generation: i64, state: PassportState) -> Presented {
    Presented::Passport(Passport { generation: g(generation), state })
}

#[test]
fn a_passport_may_be_presented_again_until_something_it_minted_was_used() {
    let again = Decision::Redeems { generation: g(2) };
    assert_eq!(register(standing(), passport(2, PassportState::Redeemed)), again);
    // Used up: the file of its instance holds something newer.
    let spent = refusal(register(standing(), passport(2, PassportState::Spent))).told.unwrap();
    assert_eq!((spent.code, spent.action), (Code::Superseded, Action::RereadCredential));
    // Nothing is live: it is proof enough of having been that instance.
    let nothing_live = Standing { live: false, ..standing() };
    for state in [PassportState::Spent, PassportState::Revoked] {
        let again = Decision::ReEnrols { generation: g(2) };
        assert_eq!(register(nothing_live, passport(2, state)), again);
        let abandoned = Standing { newest: g(3), newest_is: Newest::Abandoned, ..nothing_live };
        assert!(matches!(register(abandoned, passport(3, state)), Decision::Refused(_)));
    }
    let candidate = Standing { newest: g(3), newest_is: Newest::Candidate, ..standing() };
    assert_eq!(
        register(candidate, passport(3, PassportState::Redeemed)),
        Decision::Candidate { generation: g(3), mints: true, activates: false }
    );
    for state in [PassportState::Expired, PassportState::Revoked] {
        assert!(matches!(register(standing(), passport(2, state)), Decision::Refused(_)));
    }
    // It opens a generation, and is no credential for anything else.
    for call in [Call::Heartbeat, Call::UpdateCard, Call::Rotate] {
        let decision = decide(&facts(call, standing(), passport(2, PassportState::Open)));
        assert!(matches!(decision, Decision::Refused(_)), "{call:?}");
    }
}

#[test]
fn after_a_revocation_its_former_holder_waits_for_others() {
    let revoked = Standing { live: false, opened: true, just_revoked: true, ..standing() };
    let held = Presented::Credential(held(2, State::Revoked));
    let beat = refusal(decide(&facts(Call::Heartbeat, revoked, held)));
    assert!(matches!(beat.told.unwrap().action, Action::Wait(_)) && beat.heard);
    // A register is admitted at once.
    assert_eq!(register(revoked, held), Decision::ReEnrols { generation: g(2) });
    let later = Standing { just_revoked: false, ..revoked };
    let beat = refusal(decide(&facts(Call::Heartbeat, later, held)));
    assert_eq!((beat.told.unwrap().action, beat.heard), (Action::Register, false));
    let at = Timestamp::from_micros(7);
    let waits = |seconds| just_revoked(Some(at), at.after(std::time::Duration::from_secs(seconds)));
    assert!(waits(119) && !waits(120) && !just_revoked(None, at));
}

#[test]
fn hb_17_compat_answers_what_cannot_be_changed_and_lets_in_where_nothing_is_live() {
    let compat = |facts: Facts| decide(&Facts { compat: true, ..facts });
    let unknown = |call| Facts { workspace: None, ..facts(call, standing(), Presented::Nothing) };
    assert_eq!(compat(unknown(Call::Heartbeat)), Decision::Ignored);
    assert_eq!(compat(unknown(Call::UpdateCard)), Decision::Ignored);
    assert!(matches!(compat(unknown(Call::Register)), Decision::Refused(_)));
    let removed = Standing { removed: true, live: false, ..standing() };
    for call in [Call::Register, Call::Heartbeat, Call::UpdateCard] {
        let held = Presented::Credential(held(2, State::Revoked));
        assert_eq!(compat(facts(call, removed, held)), Decision::Ignored, "{call:?}");
    }
    let sealed = Standing { live: false, bootstrap: Bootstrap::Sealed, ..standing() };
    let superseded = Presented::Credential(held(1, State::Superseded));
    let next = Decision::Bootstraps { generation: g(3), abandons: None };
    for presented in [Presented::Nothing, Presented::Stranger, superseded] {
        assert_eq!(compat(facts(Call::Register, sealed, presented)), next);
        let beat = compat(facts(Call::Heartbeat, sealed, presented));
        assert_eq!(beat, Decision::LetThrough { generation: g(2) });
        // Something live: as strict as ever.
        assert!(matches!(
            compat(facts(Call::Register, standing(), presented)),
            Decision::Refused(_)
        ));
        assert!(matches!(compat(facts(Call::Rotate, sealed, presented)), Decision::Refused(_)));
    }
}

#[test]
fn rg_11_an_api_credential_serves_external_workspaces_and_mints_nothing() {
    let api = Presented::Credential(Credential {
        kind: Kind::Api,
        generation: None,
        ..held(0, State::Active)
    });
    let external = Standing { managed: false, ..standing() };
    let current = Decision::Api { opens: None, abandons: None };
    assert_eq!(register(external, api), current);
    let nothing_live = Standing { live: false, ..external };
    let opens = Decision::Api { opens: Some(g(3)), abandons: None };
    assert_eq!(register(nothing_live, api), opens);
    assert_eq!(decide(&facts(Call::Heartbeat, nothing_live, api)), current);
    // Of a managed workspace: valid elsewhere, a stranger here.
    assert_eq!(refusal(register(standing(), api)).told, None);
    let compat = Facts { compat: true, ..facts(Call::Register, standing(), api) };
    assert_eq!(decide(&compat), current);
}

#[test]
fn an_abandoned_generation_is_never_admitted_again() {
    let workspace = Standing { newest: g(3), newest_is: Newest::Abandoned, ..standing() };
    for state in [State::Pending, State::Active, State::Lapsed, State::Revoked] {
        let told =
            refusal(register(workspace, Presented::Credential(held(3, state)))).told.unwrap();
        assert_eq!(told.action, Action::Exit, "{state:?}");
    }
    // Nor when others were planned after it.
    for newest_is in [Newest::Planned, Newest::Candidate, Newest::Abandoned] {
        let workspace = Standing { newest: g(4), newest_is, ..standing() };
        let between = Presented::Credential(held(3, State::Lapsed));
        let told = refusal(register(workspace, between)).told.unwrap();
        assert_eq!(told.action, Action::Exit, "{newest_is:?}");
    }
}

#[test]
fn a_candidate_is_known_and_changes_nothing() {
    let workspace = Standing { newest: g(3), newest_is: Newest::Candidate, ..standing() };
    for state in [State::Pending, State::Active] {
        let decision =
            decide(&facts(Call::Heartbeat, workspace, Presented::Credential(held(3, state))));
        let activates = state == State::Pending;
        assert_eq!(decision, Decision::Candidate { generation: g(3), mints: false, activates });
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
    // Who holds something valid has lost nothing; and what a person revoked is not replaced.
    let valid = Presented::Credential(held(2, State::Active));
    assert_eq!(asked(Some(lost), valid), Decision::Current { generation: g(2), activates: false });
    for state in [State::Lapsed, State::Revoked, State::Superseded] {
        let ended = Credential { state, ..lost };
        assert!(matches!(asked(Some(ended), Presented::Nothing), Decision::Refused(_)));
    }
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

/// A generation is planned whose instance can prove nothing.
fn awaited(there: bool) -> Standing {
    let newcomer = Newcomer::Bare { there };
    Standing { newest: g(3), newest_is: Newest::Planned, live: false, newcomer, ..standing() }
}

#[test]
fn who_can_prove_nothing_takes_the_planned_generation_from_where_it_is() {
    let planned = Decision::Bootstraps { generation: g(3), abandons: None };
    for presented in [Presented::Nothing, Presented::Stranger] {
        assert_eq!(register(awaited(true), presented), planned);
        assert_eq!(refusal(register(awaited(false), presented)).told, None);
        // Something live: whoever it is comes too late, or too early.
        let live = Standing { live: true, ..awaited(true) };
        assert!(matches!(register(live, presented), Decision::Refused(_)));
        // A person opened it for somebody else.
        let opened = Standing { opened: true, ..awaited(false) };
        let overtakes = Decision::Bootstraps { generation: g(4), abandons: Some(g(3)) };
        assert_eq!(register(opened, presented), overtakes);
    }
    // Its predecessor is over, whatever it holds.
    let elder = Presented::Credential(held(2, State::Superseded));
    assert!(matches!(register(awaited(true), elder), Decision::Refused(_)));
    // Nothing is planned: it opens the next, and from where it is.
    let lost = |there| Standing { newest: g(2), newest_is: Newest::Current, ..awaited(there) };
    let next = Decision::Bootstraps { generation: g(3), abandons: None };
    assert_eq!(register(lost(true), Presented::Nothing), next);
    assert!(matches!(register(lost(false), Presented::Nothing), Decision::Refused(_)));
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let newest = prop_oneof![
        Just(Newest::Current),
        Just(Newest::Planned),
        Just(Newest::Candidate),
        Just(Newest::Abandoned)
    ];
    let newcomer = prop_oneof![
        Just(Newcomer::Proves),
        any::<bool>().prop_map(|there| Newcomer::Bare { there })
    ];
    (any::<[bool; 6]>(), 0..4i64, newest, newcomer).prop_map(
        |(flags, current, newest_is, newcomer)| {
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
                newcomer,
            }
        },
    )
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
        (0..6i64, any_passport_state()).prop_map(|(n, state)| passport(n, state)),
    ]
}

fn any_passport_state() -> impl Strategy<Value = PassportState> {
    prop_oneof![
        Just(PassportState::Open),
        Just(PassportState::Redeemed),
        Just(PassportState::Spent),
        Just(PassportState::Expired),
        Just(PassportState::Revoked)
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::Register),
        Just(Call::Heartbeat),
        Just(Call::UpdateCard),
        Just(Call::Rotate)
    ]
}

proptest! {
    #[test]
    fn law_3_strangers_get_in_only_by_an_open_bootstrap(workspace in any_standing(), call in any_call(), bearer: bool) {
        let presented = if bearer { Presented::Stranger } else { Presented::Nothing };
        match decide(&facts(call, workspace, presented)) {
            Decision::Bootstraps { generation, abandons } => {
                let elsewhere = workspace.newcomer == Newcomer::Bare { there: false };
                prop_assert!(workspace.opened || !elsewhere);
                let bare = matches!(workspace.newcomer, Newcomer::Bare { there: true });
                let planned = bare && workspace.newest_is == Newest::Planned;
                prop_assert_eq!(generation == workspace.newest, planned);
                prop_assert!(!planned || abandons.is_none());
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
            | Decision::Early { generation } | Decision::Candidate { generation, .. } | Decision::Redeems { generation }
            | Decision::ReEnrols { generation } | Decision::Bootstraps { generation, .. } => generation,
            Decision::LetThrough { .. } | Decision::Ignored => {
                prop_assert!(false, "the contract's open doors are closed");
                return Ok(());
            }
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
            | Decision::Creates | Decision::Redeems { .. } | Decision::TakesOver { mints: true, .. } | Decision::Candidate { mints: true, .. });
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

    #[test]
    fn law_4_a_candidate_never_changes_hands_by_admission(workspace in any_standing(), call in any_call(), presented in any_presented()) {
        let workspace = Standing { newest_is: Newest::Candidate, newest: workspace.current.next(), ..workspace };
        let generation = match decide(&facts(call, workspace, presented)) {
            Decision::TakesOver { generation, .. } | Decision::ReEnrols { generation }
            | Decision::Redeems { generation } | Decision::Current { generation, .. } => generation,
            _ => return Ok(()),
        };
        prop_assert_eq!(generation, workspace.current);
    }

    #[test]
    fn whom_a_newer_credential_replaced_never_comes_back(workspace in any_standing(), call in any_call(), generation in 0..6i64) {
        let presented = Presented::Credential(held(generation, State::Superseded));
        let decision = decide(&facts(call, workspace, presented));
        prop_assert!(matches!(decision, Decision::Refused(_)), "{:?}", decision);
    }

    #[test]
    fn only_a_call_that_is_a_use_activates(workspace in any_standing(), call in any_call(), presented in any_presented()) {
        let activates = match decide(&facts(call, workspace, presented)) {
            Decision::Current { activates, .. } | Decision::Candidate { activates, .. } => activates,
            Decision::TakesOver { .. } => true,
            _ => false,
        };
        prop_assert!(!activates || call.is_use());
    }
}

/// Each guard of the table, switched off, changes an answer that the tests above rely on.
#[cfg(feature = "mutants")]
#[test]
fn every_guard_of_the_table_carries_load() {
    use ligand_domain::admission;
    use ligand_domain::guards::Guard;

    let nothing_live = Standing { live: false, managed: false, ..standing() };
    let candidate = Standing { newest: g(3), newest_is: Newest::Candidate, ..standing() };
    let external = Standing { managed: false, ..standing() };
    let of = |generation, state| Presented::Credential(held(generation, state));
    let beat = |workspace, presented| facts(Call::Heartbeat, workspace, presented);
    let enrol = |workspace, presented| facts(Call::Register, workspace, presented);
    let replayed = Some(held(2, State::Pending));
    for (guard, facts) in [
        (Guard::ReplayFirst, Facts { replayed, ..enrol(standing(), Presented::Nothing) }),
        (Guard::PassportAgain, enrol(standing(), passport(2, PassportState::Redeemed))),
        (Guard::ExitByGeneration, beat(standing(), of(2, State::Superseded))),
        (Guard::NeverExitExternal, beat(external, of(1, State::Superseded))),
        (Guard::ReEnrolByGeneration, enrol(nothing_live, of(1, State::Superseded))),
        (Guard::CandidateActive, beat(candidate, of(3, State::Active))),
        (Guard::CandidateInert, beat(candidate, of(3, State::Pending))),
        (Guard::OneWriter, beat(standing(), of(1, State::Active))),
        (Guard::ForeignPlanned, enrol(awaited(true), Presented::Nothing)),
        (Guard::ForeignAddress, enrol(awaited(false), Presented::Nothing)),
    ] {
        let mutant = admission::decide(&facts, Guards::without(guard));
        assert_ne!(decide(&facts), mutant, "{guard:?}");
    }
}
