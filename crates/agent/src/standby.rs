//! Whether the program runs, and with which secrets. Pure: no clock, no files, no network.
//!
//! ```text
//!                  run                     fetched
//!   standing by ---------> wants secrets ----------> runs
//!        ^                                            |  a greater serial: fetch again, then restart
//!        +--------------------------------------------+
//!                          stand by
//! ```
//!
//! The platform says what it wants in the answer to every heartbeat, so nothing of it is kept: an agent that is
//! started again in [`Mode::Wait`] waits again. To say nothing means *as usual*, which is to run; only who was started
//! to wait, and was never told to run, goes on waiting.

use ligand_api::registry::ProgramWish;

/// When the program is started, and where its secrets come from: what the start-up data say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// At once: its secrets are in the environment.
    #[default]
    AtOnce,
    /// Once the platform says so; its secrets are fetched then.
    Wait,
    /// Once the agent is enrolled and has fetched its secrets.
    Pull,
}

impl Mode {
    /// The word in `LIGAND_STANDBY`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "wait" => Some(Self::Wait),
            "pull" => Some(Self::Pull),
            _ => None,
        }
    }
}

/// What the platform wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// That the program runs, with secrets that were fetched for this serial or a later one.
    Run(i64),
    /// That it does not. The serial is said again, so that it is known what is answered.
    StandBy(i64),
}

impl Wish {
    /// From a heartbeat's answer. A word that this version does not know is no wish.
    #[must_use]
    pub fn from_wire(said: &ProgramWish) -> Option<Self> {
        match said.state.as_str() {
            "run" => Some(Self::Run(said.serial.unwrap_or(0))),
            "stand-by" => Some(Self::StandBy(said.serial.unwrap_or(0))),
            _ => None,
        }
    }
}

/// Where the program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    mode: Mode,
    /// It is to run.
    runs: bool,
    /// The platform said once that it may.
    released: bool,
    /// The newest serial that was told.
    serial: i64,
    /// The serial for which the secrets in hand were fetched.
    fetched: Option<i64>,
    /// The serial of the last wish that it stands by; 0: there was none.
    stood: i64,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fetch the secrets, for this serial. What the program does stays as it is until they are there.
    Fetch(i64),
    /// The program runs, with the secrets that were fetched for this serial; a program that runs with older ones is
    /// started again. `None`: with those of the environment.
    Run(Option<i64>),
    /// The program does not run.
    StandBy,
}

impl State {
    /// Of an agent that has just started.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let runs = mode != Mode::Wait;
        Self { mode, runs, released: runs, serial: 0, fetched: None, stood: 0 }
    }

    /// A heartbeat was answered.
    pub fn heard(&mut self, wish: Option<Wish>) {
        match wish {
            Some(Wish::Run(serial)) => {
                (self.runs, self.released) = (true, true);
                self.serial = self.serial.max(serial);
            }
            Some(Wish::StandBy(serial)) => (self.runs, self.stood) = (false, serial),
            None => self.runs = self.released,
        }
    }

    /// Secrets were fetched for this serial.
    pub fn fetched(&mut self, serial: i64) {
        self.fetched = Some(serial);
    }

    /// The serial of the wish because of which it stands by; 0 where it was started to.
    #[must_use]
    pub fn stood(&self) -> i64 {
        self.stood
    }

    /// What follows.
    #[must_use]
    pub fn next(&self) -> Action {
        match (self.runs, self.mode) {
            (false, _) => Action::StandBy,
            (true, Mode::AtOnce) => Action::Run(None),
            (true, Mode::Wait | Mode::Pull) => match self.fetched {
                Some(serial) if serial >= self.serial => Action::Run(Some(serial)),
                _ => Action::Fetch(self.serial),
            },
        }
    }
}

/// The wire's word for what the program does, given what it is to do.
#[must_use]
pub fn word(runs: bool, up: bool, down: bool) -> &'static str {
    match (runs, up, down) {
        (true, true, _) => "running",
        (true, false, _) => "starting",
        (false, _, true) => "standing-by",
        (false, _, false) => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_usual_it_runs_with_what_is_in_its_environment_whatever_the_serial() {
        let mut state = State::new(Mode::AtOnce);
        assert_eq!(state.next(), Action::Run(None));
        for (wish, expected) in [
            (None, Action::Run(None)),
            (Some(Wish::StandBy(2)), Action::StandBy),
            (None, Action::Run(None)),
            (Some(Wish::StandBy(3)), Action::StandBy),
            (Some(Wish::Run(7)), Action::Run(None)),
        ] {
            state.heard(wish);
            assert_eq!(state.next(), expected, "{wish:?}");
        }
        assert_eq!(state.stood(), 3, "the last one");
    }

    #[test]
    fn who_was_started_to_wait_waits_until_told_and_is_as_usual_from_then_on() {
        let mut state = State::new(Mode::Wait);
        for _ in 0..3 {
            assert_eq!(state.next(), Action::StandBy);
            state.heard(None);
        }
        state.heard(Some(Wish::Run(4)));
        assert_eq!(state.next(), Action::Fetch(4));
        state.fetched(4);
        assert_eq!(state.next(), Action::Run(Some(4)));
        state.heard(None);
        assert_eq!(state.next(), Action::Run(Some(4)), "nothing is wanted: as usual");
        assert_eq!(state.stood(), 0, "nobody told it to");
        state.heard(Some(Wish::StandBy(5)));
        assert_eq!((state.next(), state.stood()), (Action::StandBy, 5));
        state.heard(None);
        assert_eq!(state.next(), Action::Run(Some(4)), "with what it had");
        assert_eq!(State::new(Mode::Wait).next(), Action::StandBy, "started again it waits again");
    }

    #[test]
    fn secrets_are_fetched_again_for_a_greater_serial_and_for_no_other() {
        let mut state = State::new(Mode::Wait);
        state.heard(Some(Wish::Run(4)));
        state.fetched(4);
        for serial in [4, 3, 0] {
            state.heard(Some(Wish::Run(serial)));
            assert_eq!(state.next(), Action::Run(Some(4)), "{serial}");
        }
        state.heard(Some(Wish::Run(5)));
        assert_eq!(state.next(), Action::Fetch(5));
        state.heard(Some(Wish::Run(6)));
        state.fetched(5);
        assert_eq!(state.next(), Action::Fetch(6), "told meanwhile");
        state.heard(Some(Wish::StandBy(7)));
        assert_eq!(state.next(), Action::StandBy, "nothing is fetched for nobody");
    }

    #[test]
    fn who_pulls_runs_once_it_has_fetched() {
        let mut state = State::new(Mode::Pull);
        assert_eq!(state.next(), Action::Fetch(0));
        state.heard(None);
        assert_eq!(state.next(), Action::Fetch(0));
        state.fetched(0);
        assert_eq!(state.next(), Action::Run(Some(0)));
    }

    #[test]
    fn an_unknown_word_is_no_wish() {
        let said = |state: &str, serial| ProgramWish { state: state.to_owned(), serial };
        assert_eq!(Wish::from_wire(&said("run", Some(3))), Some(Wish::Run(3)));
        assert_eq!(Wish::from_wire(&said("run", None)), Some(Wish::Run(0)));
        assert_eq!(Wish::from_wire(&said("stand-by", Some(3))), Some(Wish::StandBy(3)));
        assert_eq!(Wish::from_wire(&said("stand-by", None)), Some(Wish::StandBy(0)));
        assert_eq!(Wish::from_wire(&said("dance", None)), None);
    }

    #[test]
    fn what_it_reports_is_never_ahead_of_what_is() {
        let table = [
            ((true, true, false), "running"),
            ((true, false, false), "starting"),
            ((true, false, true), "starting"),
            ((false, true, false), "stopping"),
            ((false, false, false), "stopping"),
            ((false, false, true), "standing-by"),
        ];
        for ((runs, up, down), expected) in table {
            assert_eq!(word(runs, up, down), expected);
        }
    }
}
