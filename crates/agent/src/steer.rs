//! The program as the platform wants it: what the enrolment is told becomes an order, the conductor carries orders
//! out, and what has come of them is reported.
//!
//! Standing by means that nothing of the workspace's data changes here: there is no program, no turn is running, and
//! what is known of turns is in its files. The built-in echo stands by in the same way.

use std::sync::Arc;
use std::time::Duration;

use ligand_api::registry::{ProgramState, ProgramWish};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::delivery::Front;
use crate::standby::{self, Action, Mode, State, Wish};
use crate::supervise::{Started, Supervisor};
use crate::values::Values;
use crate::vitals::{Program, Vitals};
use crate::{leftover, machine};

/// How often it is looked whether the last turn has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What the program is to do.
#[derive(Clone)]
pub(crate) struct Order {
    /// Orders are numbered, so that it is known which one is being followed.
    nth: u64,
    runs: bool,
    values: Option<Arc<Values>>,
}

/// The enrolment's hand on the program.
pub(crate) struct Steering {
    state: State,
    vitals: Arc<Vitals>,
    orders: watch::Sender<Order>,
    /// What the last order said.
    ordered: Action,
    values: Option<Arc<Values>>,
    /// The platform's last answer said what it wants.
    wished: bool,
    /// What was ordered has come about.
    arrived: bool,
    /// What the last heartbeat could say of it.
    told: &'static str,
}

impl Steering {
    /// Of a program that does, at the start, what `mode` says.
    pub(crate) fn new(mode: Mode, vitals: Arc<Vitals>) -> Self {
        let usual = mode == Mode::AtOnce;
        let ordered = if usual { Action::Run(None) } else { Action::StandBy };
        let orders = watch::Sender::new(Order { nth: 0, runs: usual, values: None });
        let state = State::new(mode);
        let told = "";
        Self { state, vitals, orders, ordered, values: None, wished: false, arrived: usual, told }
    }

    /// Where the conductor finds its orders.
    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.orders.subscribe()
    }

    /// A heartbeat was answered.
    pub(crate) fn heard(&mut self, wish: Option<&ProgramWish>) {
        self.wished = wish.is_some();
        match wish.map(Wish::from_wire) {
            None => self.state.heard(None),
            Some(Some(wish)) => self.state.heard(Some(wish)),
            Some(None) => {}
        }
        self.order();
    }

    /// The serial for which secrets are to be fetched.
    pub(crate) fn wants(&self) -> Option<i64> {
        match self.state.next() {
            Action::Fetch(serial) => Some(serial),
            Action::Run(_) | Action::StandBy => None,
        }
    }

    /// Secrets were fetched for this serial.
    pub(crate) fn fetched(&mut self, serial: i64, values: Values) {
        self.values = Some(Arc::new(values));
        self.state.fetched(serial);
        self.order();
    }

    fn order(&mut self) {
        let action = self.state.next();
        if matches!(action, Action::Fetch(_)) || action == self.ordered {
            return;
        }
        self.ordered = action;
        self.arrived = false;
        let runs = matches!(action, Action::Run(_));
        let values = self.values.clone().filter(|_| matches!(action, Action::Run(Some(_))));
        match runs {
            true => tracing::info!("the program is to run"),
            false => tracing::info!("the program is to stand by"),
        }
        self.orders.send_modify(|order| *order = Order { nth: order.nth + 1, runs, values });
    }

    /// What the platform is told of the program; nothing where all is as usual.
    pub(crate) fn report(&mut self) -> Option<ProgramState> {
        self.told = self.word();
        self.arrived |= self.told == "running";
        let serial = match self.ordered {
            Action::Run(serial) => serial,
            Action::StandBy => Some(self.state.stood()),
            Action::Fetch(_) => None,
        };
        (!self.usual()).then(|| ProgramState { state: self.told.to_owned(), serial })
    }

    fn usual(&self) -> bool {
        self.arrived && !self.wished && matches!(self.ordered, Action::Run(_))
    }

    /// What its receipt is about, where it fetches: what the program holds, once it runs.
    pub(crate) fn held(&self) -> Held<'_> {
        match (self.ordered, &self.values) {
            (Action::Run(None), _) => Held::Inherited,
            (Action::Run(Some(_)), Some(values)) if self.word() == "running" => Held::These(values),
            _ => Held::Nothing,
        }
    }

    /// Returns when there is something new to report.
    pub(crate) async fn stirred(&self) {
        let mut changes = self.vitals.changes();
        while self.usual() || self.word() == self.told {
            changes.changed().await.expect("the sender lives as long as `self`");
        }
    }

    /// What the program does, as seen from what was ordered last.
    fn word(&self) -> &'static str {
        let (program, following) = self.vitals.doing();
        let order = self.orders.borrow();
        let follows = following == order.nth;
        let up = follows && matches!(program, Program::None | Program::Running(_));
        let down = follows && program == Program::StandingBy;
        standby::word(order.runs, up, down)
    }
}

/// What the program holds of its secrets.
pub(crate) enum Held<'a> {
    /// What is in our own environment.
    Inherited,
    /// These.
    These(&'a Values),
    /// Nothing: it does not run.
    Nothing,
}

/// Carries orders out.
pub(crate) struct Conductor {
    /// `None`: the built-in echo.
    pub(crate) program: Option<Supervisor>,
    pub(crate) front: Arc<Front>,
    pub(crate) orders: watch::Receiver<Order>,
}

impl Conductor {
    /// Follow the orders until `stop`. The program is gone when this returns. `first` runs already.
    pub(crate) async fn run(mut self, mut first: Option<Started>, stop: CancellationToken) {
        let vitals = Arc::clone(&self.front.vitals);
        while !stop.is_cancelled() {
            let order = self.orders.borrow_and_update().clone();
            vitals.take_up(order.nth);
            let over = stop.child_token();
            let orders = &mut self.orders;
            let replaced = async {
                tokio::select! {
                    Ok(()) = orders.changed() => {
                        // From here on no turn begins, so that the last one is known.
                        vitals.set_program(Program::Stopping);
                        over.cancel();
                    }
                    () = over.cancelled() => {}
                }
            };
            let (program, front) = (self.program.as_ref(), &self.front);
            let follow = follow(program, front, &order, first.take(), (&over, &stop));
            tokio::join!(follow, replaced);
        }
    }
}

/// Follow one order until it is over.
async fn follow(
    program: Option<&Supervisor>,
    front: &Arc<Front>,
    order: &Order,
    first: Option<Started>,
    (over, stop): (&CancellationToken, &CancellationToken),
) {
    if !order.runs {
        over.run_until_cancelled(stand_by(front)).await;
        return over.cancelled().await;
    }
    if front.vitals.program() == Program::StandingBy {
        // Data may have come in the meantime.
        front.look_through_records().await;
    }
    match program {
        Some(supervisor) => {
            let family = supervisor.run(first, order.values.as_deref(), over).await;
            if !stop.is_cancelled() {
                let ended = leftover::end(&family);
                tracing::info!(ended, "the program is gone, with what it had left");
            }
        }
        None => {
            front.vitals.set_program(Program::None);
            over.cancelled().await;
        }
    }
}

/// The program has ended: wait for the turns that are still running here, and say when all is quiet.
async fn stand_by(front: &Arc<Front>) {
    if front.vitals.program() == Program::StandingBy {
        return;
    }
    front.vitals.set_program(Program::Stopping);
    while !front.quiet() {
        machine::sleep(LOOK).await;
    }
    front.look_through_records().await;
    front.vitals.set_program(Program::StandingBy);
    tracing::info!("standing by");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(state: &str, serial: Option<i64>) -> ProgramWish {
        ProgramWish { state: state.to_owned(), serial }
    }

    fn said(steering: &mut Steering) -> Option<(String, Option<i64>)> {
        steering.report().map(|program| (program.state, program.serial))
    }

    /// What the conductor does, without one.
    fn follow(vitals: &Vitals, nth: u64, program: Program) {
        vitals.take_up(nth);
        vitals.set_program(program);
    }

    #[test]
    fn as_usual_nothing_is_reported_until_something_is_wanted() {
        let vitals = Vitals::new(Program::Running(1));
        let mut steering = Steering::new(Mode::AtOnce, Arc::clone(&vitals));
        assert_eq!(said(&mut steering), None);
        vitals.set_program(Program::Down);
        assert_eq!(said(&mut steering), None, "its ends are told otherwise");
        vitals.set_program(Program::Running(1));
        steering.heard(Some(&wish("stand-by", Some(2))));
        assert_eq!(said(&mut steering), Some(("stopping".to_owned(), Some(2))));
        assert!(matches!(steering.held(), Held::Nothing));
        follow(&vitals, 1, Program::StandingBy);
        assert_eq!(said(&mut steering), Some(("standing-by".to_owned(), Some(2))));
        steering.heard(Some(&wish("stand-by", Some(3))));
        assert_eq!(said(&mut steering), Some(("standing-by".to_owned(), Some(3))), "of this wish");
        steering.heard(None);
        assert_eq!(said(&mut steering), Some(("starting".to_owned(), None)));
        follow(&vitals, 2, Program::Running(2));
        assert_eq!(said(&mut steering), None, "as usual");
        assert!(matches!(steering.held(), Held::Inherited));
    }

    #[test]
    fn a_program_that_runs_with_older_secrets_is_not_reported_with_the_new_serial() {
        let vitals = Vitals::new(Program::StandingBy);
        let mut steering = Steering::new(Mode::Wait, Arc::clone(&vitals));
        assert_eq!(said(&mut steering), Some(("standing-by".to_owned(), Some(0))));
        steering.heard(Some(&wish("run", Some(4))));
        assert_eq!(steering.wants(), Some(4));
        assert_eq!(said(&mut steering), Some(("standing-by".to_owned(), Some(0))));
        steering.fetched(4, Values::default());
        assert_eq!(said(&mut steering), Some(("starting".to_owned(), Some(4))));
        follow(&vitals, 1, Program::Running(1));
        assert_eq!(said(&mut steering), Some(("running".to_owned(), Some(4))));
        steering.heard(Some(&wish("run", Some(5))));
        assert_eq!(said(&mut steering), Some(("running".to_owned(), Some(4))), "not fetched yet");
        steering.fetched(5, Values::default());
        assert_eq!(
            said(&mut steering),
            Some(("starting".to_owned(), Some(5))),
            "not restarted yet"
        );
        assert!(matches!(steering.held(), Held::Nothing));
        follow(&vitals, 2, Program::Running(1));
        assert!(matches!(steering.held(), Held::These(_)));
        steering.heard(Some(&wish("run", Some(5))));
        assert_eq!(
            said(&mut steering),
            Some(("running".to_owned(), Some(5))),
            "as long as it is wanted"
        );
        steering.heard(None);
        assert_eq!(said(&mut steering), None);
    }
}
