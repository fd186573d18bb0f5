//! Every drill.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;

use super::scene::{Outcome, Scene};
use super::stack::Stack;
use super::{
    crash, credentials, enrolment, migration, outage, queue, replacement, rotation, streams,
};

/// A drill going on.
pub(super) type Playing<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// An incident that can be re-enacted.
#[derive(Serialize)]
pub(super) struct Drill {
    pub(super) name: &'static str,
    /// What goes wrong, in a line.
    pub(super) incident: &'static str,
    /// How it showed, where it happened.
    pub(super) in_life: &'static str,
    /// What the drill does.
    pub(super) here: &'static str,
    /// By number.
    pub(super) laws: &'static [u8],
    /// The rules without which it fails.
    pub(super) mutants: &'static [&'static str],
    #[serde(skip)]
    pub(super) play: for<'a> fn(&'a Scene, &'a mut Stack) -> Playing<'a>,
}

/// All of them.
pub(super) const ALL: &[Drill] = &[
    Drill {
        name: "double-provision",
        incident: "two replacements of one workspace run into each other",
        in_life: "the loser's credential ended between two questions about it; it was refused for ever, \
                  and the workspace went on looking online with nobody behind it",
        here: "twenty restarts at once; then credentials are revoked under running agents: \
               an older one knocks, and its rightful agent comes back",
        laws: &[1, 2, 3, 8],
        mutants: &["re-enrol-by-generation"],
        play: |scene, stack| Box::pin(replacement::double_provision(scene, stack)),
    },
    Drill {
        name: "sweeper-toctou",
        incident: "a sweep looks while a restart stands between stop and start",
        in_life: "it chose a credential for being idle, and ended the fresh one with it: the new instance \
                  was refused for ever",
        here: "a restart is held up between stop and start while sweeps look; then instances are killed \
               and replaced under more of them",
        laws: &[2, 5],
        mutants: &["sweep-spares-current"],
        play: |scene, stack| Box::pin(replacement::sweeper_toctou(scene, stack)),
    },
    Drill {
        name: "zombie-source",
        incident: "an instance survives its stop and goes on reporting",
        in_life: "old and new instance took turns as the workspace: its address flipped to and fro",
        here: "a copy of an instance runs where no stop reaches it, while the workspace is restarted; the same \
               with a migration, and with the target of one that is rolled back",
        laws: &[1, 7],
        mutants: &["one-writer", "exit-by-generation", "roll-back-revokes"],
        play: |scene, stack| Box::pin(replacement::zombie_source(scene, stack)),
    },
    Drill {
        name: "lost-register-reply",
        incident: "the answer that carries the only copy of a credential is lost",
        in_life: "the platform took the agent for enrolled, and the agent had nothing to show: refused \
                  for ever",
        here: "the network loses the answer; the agent is killed meanwhile; a late copy of the request \
               arrives after it",
        laws: &[2, 3, 9],
        mutants: &["replay-first", "key-kept"],
        play: |scene, stack| Box::pin(enrolment::lost_register_reply(scene, stack)),
    },
    Drill {
        name: "concurrent-bootstrap",
        incident: "several first registers of one workspace arrive at once",
        in_life: "each was told that it is the workspace, and each held a credential for it",
        here: "callers and real agents race for a workspace that nobody holds yet",
        laws: &[1, 3],
        mutants: &["pending-is-live"],
        play: |scene, stack| Box::pin(enrolment::concurrent_bootstrap(scene, stack)),
    },
    Drill {
        name: "stolen-id",
        incident: "a stranger who knows a workspace's id is quicker than its agent",
        in_life: "ids are no secrets; while an instance booted, whoever registered first became it",
        here: "strangers knock without pause while agents of an external and of a managed workspace start, and \
               while that one goes to another backend",
        laws: &[3, 4],
        mutants: &["pending-is-live", "candidate-inert"],
        play: |scene, stack| Box::pin(enrolment::stolen_id(scene, stack)),
    },
    Drill {
        name: "late-credential",
        incident: "an instance calls back before its credential is committed",
        in_life: "quick instances were refused at their first call, slow ones were not",
        here: "many quick instances start at once, twice; not one call of theirs may be refused",
        laws: &[2, 9],
        mutants: &["plan-commits"],
        play: |scene, stack| Box::pin(enrolment::late_credential(scene, stack)),
    },
    Drill {
        name: "rotation-race",
        incident: "an agent holds the old credential in memory while a new one is written",
        in_life: "the new credential was written after the agent had read the file: every heartbeat of it \
                  was refused from then on",
        here: "a new credential arrives late; and an agent is killed at the first use of one that it took itself",
        laws: &[2, 9],
        mutants: &["reread-once", "write-before-use"],
        play: |scene, stack| Box::pin(rotation::rotation_race(scene, stack)),
    },
    Drill {
        name: "rotation-unwritable",
        incident: "an agent cannot write while its credential rotates",
        in_life: "the disk was full: the new credential was in memory only, and the old one already dead",
        here: "the agent's directory takes no file; it is killed with -9, twice; then there is room again",
        laws: &[2, 7, 9],
        mutants: &["rotate-beside"],
        play: |scene, stack| Box::pin(rotation::rotation_unwritable(scene, stack)),
    },
    Drill {
        name: "rotation-backlog",
        incident: "several rotations are ordered while the agent is away",
        in_life: "back again, it carried them out one by one, and was led to a credential that was revoked",
        here: "three rotations are ordered while the agent is held still; then it goes on",
        laws: &[2],
        mutants: &["newest-rotation"],
        play: |scene, stack| Box::pin(rotation::rotation_backlog(scene, stack)),
    },
    Drill {
        name: "fleet-credentials",
        incident: "an instance is started without one of its secrets",
        in_life: "it served its card and its health check, was taken for well, and failed at its first real turn",
        here: "every instance starts without one variable; then that is mended, and the workspace restarted; \
               another one goes to another backend",
        laws: &[2, 7, 10],
        mutants: &["receipt"],
        play: |scene, stack| Box::pin(credentials::fleet_credentials(scene, stack)),
    },
    Drill {
        name: "migration-stale-token",
        incident: "a workspace moves, and its target comes with nothing, or with the source's credential",
        in_life: "the target was refused for ever, while its card was served: the move was reported as \
                  complete, the source retired, and self-healing brought it back where it had been",
        here: "a workspace goes to a backend that has nothing of it, and back to one where somebody put a copy \
               of its credential",
        laws: &[1, 2, 4],
        mutants: &["candidate-active", "passport-before-file"],
        play: |scene, stack| Box::pin(migration::migration_stale_token(scene, stack)),
    },
    Drill {
        name: "blind-cutover",
        incident: "a workspace moves to a target that serves its card and completes no turn",
        in_life: "five of them passed their health checks, and each failed at its first real turn",
        here: "a target that starts and registers, and fails each turn, while a caller goes on sending",
        laws: &[4, 6],
        mutants: &["cut-over-evidence"],
        play: |scene, stack| Box::pin(migration::blind_cutover(scene, stack)),
    },
    Drill {
        name: "secret-missing",
        incident: "a workspace moves, and its target lacks one of its secrets",
        in_life: "the environment of every target was made without secrets, which were kept elsewhere",
        here: "what the platform tells the target lacks one name",
        laws: &[4, 10],
        mutants: &["receipt"],
        play: |scene, stack| Box::pin(migration::secret_missing(scene, stack)),
    },
    Drill {
        name: "migration-revoked",
        incident: "the credentials of a workspace are revoked while it moves",
        in_life: "a move that went on afterwards would have made current what an administrator had just ended",
        here: "credentials are revoked while turns in flight end, and again while the target is tried; each time \
               the workspace has to be where it was",
        laws: &[1, 2, 4],
        mutants: &["cut-over-rereads"],
        play: |scene, stack| Box::pin(migration::migration_revoked(scene, stack)),
    },
    Drill {
        name: "event-gap",
        incident: "a watcher's connection is cut in the middle of a stream",
        in_life: "it connected again and went on with what came next: what happened in between it never heard \
                  of, and nothing told it so",
        here: "four watchers are cut off again and again while events come, and the server is killed once; each \
               goes on from the last event that it had",
        laws: &[7, 9],
        mutants: &["stream-sequence"],
        play: |scene, stack| Box::pin(streams::event_gap(scene, stack)),
    },
    Drill {
        name: "restart-blackout",
        incident: "the server is away for longer than every lease",
        in_life: "back again, it took everybody's silence for death and replaced the whole fleet",
        here: "kill -9 of the server; one agent dies while it is away; then it comes back",
        laws: &[2, 7, 9],
        mutants: &["grace-after-start"],
        play: |scene, stack| Box::pin(outage::restart_blackout(scene, stack)),
    },
    Drill {
        name: "crash-at-every-step",
        incident: "the server dies between two steps of a restart, a replacement, a delete, a migration",
        in_life: "what stood half-way stayed so: a workspace that was being restarted for ever, an instance \
                  that ran on and that nobody knew of",
        here: "kill -9 of the server after each entry that an operation writes into the journal, one after \
               the other; each time it is started again, and what it has is counted",
        laws: &[2, 8, 9],
        mutants: &["resume-planned"],
        play: |scene, stack| Box::pin(crash::crash_at_every_step(scene, stack)),
    },
    Drill {
        name: "queue-orphan",
        incident: "the server dies between the dispatch of a queued message and its answer",
        in_life: "the message stood as dispatched for ever; made again by hand, it was carried out twice",
        here: "kill -9 of the server amid the turns of messages that it had accepted, before them and after \
               them, with the agent and without; and an answer that comes after its attempt was given up",
        laws: &[1, 6, 9],
        mutants: &["lease-attempt", "turn-once"],
        play: |scene, stack| Box::pin(queue::queue_orphan(scene, stack)),
    },
    Drill {
        name: "mass-silence",
        incident: "most agents vanish for a minute and come back",
        in_life: "the network was away; everything was replaced at once, and the storm did what the network \
                  had not",
        here: "eight of ten agents are held still for more than a minute, then go on",
        laws: &[2, 7],
        mutants: &["brake"],
        play: |scene, stack| Box::pin(outage::mass_silence(scene, stack)),
    },
];
