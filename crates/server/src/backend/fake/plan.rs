//! What goes wrong, at which call, how often: a list that tests write as values and operators as settings.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A call of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Whether the backend can be used at all.
    Fingerprint,
    /// Start, or find.
    Ensure,
    /// Find, without starting.
    Find,
    /// What it is doing.
    Inspect,
    /// End it.
    Stop,
    /// Forget it.
    Destroy,
    /// Take a workspace's data away.
    Erase,
    /// Every instance with our label.
    ListOwned,
    /// The end of a log, and a log as it comes.
    Logs,
    /// Take up what an earlier server started.
    Recover,
    /// Whose data is there.
    ListData,
    /// Data as an archive.
    Export,
    /// Data from an archive.
    Import,
    /// What the data amounts to.
    Digest,
    /// Anything about single files.
    Files,
    /// A shell.
    Terminal,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// What was asked for is done, and the answer to it is lost.
    LoseReply,
    /// It is refused with this text, and would be again.
    Refuse(String),
    /// Nothing is done, and there is no answer.
    Silence,
    /// It is done this many seconds later, in real time.
    Late(#[serde(with = "seconds")] Duration),
    /// There are too many calls: nothing is done, and the answer says to come again in so many seconds.
    Throttle(#[serde(with = "seconds")] Duration),
    /// It starts two of what is asked for. Destroying takes one of them away at a time.
    Twice,
    /// It says that an instance was destroyed, which is still there.
    Linger,
    /// It says that an instance runs, whatever became of it.
    SayRunning,
    /// It says that it has no such instance, though it runs.
    SayGone,
    /// It says that data was imported, and has lost it.
    LoseData,
}

impl Fault {
    /// Which calls it spoils, where nobody says.
    #[must_use]
    pub const fn usual(&self) -> &'static [Call] {
        match self {
            Self::LoseReply | Self::Refuse(_) | Self::Throttle(_) | Self::Twice => &[Call::Ensure],
            Self::Silence => &[Call::Find, Call::Inspect],
            Self::Late(_) | Self::SayRunning | Self::SayGone => &[Call::Inspect],
            Self::Linger => &[Call::Destroy],
            Self::LoseData => &[Call::Import],
        }
    }

    /// Whether it says anything at this call, and not only of the one that it was made for.
    const fn fits(&self, call: Call) -> bool {
        match self {
            Self::Refuse(_) | Self::Silence | Self::Late(_) | Self::Throttle(_) => true,
            Self::LoseReply => matches!(
                call,
                Call::Ensure | Call::Stop | Call::Destroy | Call::Erase | Call::Import
            ),
            Self::Twice => matches!(call, Call::Ensure),
            Self::Linger => matches!(call, Call::Destroy),
            Self::SayRunning | Self::SayGone => matches!(call, Call::Inspect),
            Self::LoseData => matches!(call, Call::Import),
        }
    }
}

/// One entry of a plan. As settings:
///
/// ```toml
/// plan = [
///     { what = "lose_reply" },
///     { what = { throttle = 2 }, at = ["ensure", "inspect"], after = 3, times = 5 },
/// ]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// What goes wrong.
    pub what: Fault,
    /// At which calls; empty: at its usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<Call>,
    /// So many of those go well first.
    #[serde(default)]
    pub after: u32,
    /// How often; 0 is for ever.
    #[serde(default = "once")]
    pub times: u32,
}

const fn once() -> u32 {
    1
}

impl Planned {
    /// Once, at its usual calls.
    #[must_use]
    pub fn once(what: Fault) -> Self {
        Self { what, at: Vec::new(), after: 0, times: once() }
    }

    /// At these calls instead of its usual ones.
    #[must_use]
    pub fn at(self, calls: &[Call]) -> Self {
        Self { at: calls.to_vec(), ..self }
    }

    /// So often; 0 is for ever.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// After so many calls that go well.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    /// Whether every call that it names can go wrong in this way.
    ///
    /// # Errors
    /// A sentence that names a call of which it makes no sense.
    pub fn check(&self) -> Result<(), String> {
        match self.at.iter().find(|call| !self.what.fits(**call)) {
            Some(call) => {
                let (what, usual) = (&self.what, self.what.usual());
                Err(format!("`{what}` says nothing at `{call}`; expected one of {}", list(usual)))
            }
            None => Ok(()),
        }
    }

    fn calls(&self) -> &[Call] {
        if self.at.is_empty() { self.what.usual() } else { &self.at }
    }
}

fn list(calls: &[Call]) -> String {
    calls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<Fault> for Planned {
    fn from(what: Fault) -> Self {
        Self::once(what)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        f.write_str(text.as_str().unwrap_or_default())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        let name = text.as_object().and_then(|object| object.keys().next().map(String::as_str));
        f.write_str(name.or(text.as_str()).unwrap_or_default())
    }
}

/// What is still to go wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan(Vec<Planned>);

impl Plan {
    pub(super) fn add(&mut self, planned: Planned) {
        self.0.push(planned);
    }

    /// A call comes: what goes wrong with it, if anything does. One thing at a time, in the order of the plan.
    pub(super) fn strike(&mut self, call: Call) -> Option<Fault> {
        let mut struck = None;
        for (at, planned) in self.0.iter_mut().enumerate() {
            if !planned.calls().contains(&call) {
                continue;
            }
            if planned.after > 0 {
                planned.after -= 1;
                continue;
            }
            struck = Some(at);
            break;
        }
        let at = struck?;
        let fault = self.0[at].what.clone();
        match self.0[at].times {
            0 => {}
            1 => drop(self.0.remove(at)),
            more => self.0[at].times = more - 1,
        }
        Some(fault)
    }
}

/// Seconds, whole or in fractions.
mod seconds {
    use std::time::Duration;

    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| D::Error::custom("expected seconds, not negative"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_strikes_in_order_so_often_and_so_late_as_it_says() {
        let mut plan = Plan::default();
        plan.add(Planned::once(Fault::Silence).after(1).times(2));
        plan.add(Planned::once(Fault::SayGone));
        let struck: Vec<_> = (0..5).map(|_| plan.strike(Call::Inspect)).collect();
        let (silence, gone) = (Some(Fault::Silence), Some(Fault::SayGone));
        assert_eq!(struck, [gone, silence.clone(), silence, None, None]);
        plan.add(Planned::once(Fault::Twice).times(0));
        assert!((0..9).all(|_| plan.strike(Call::Ensure) == Some(Fault::Twice)));
        assert_eq!(plan.strike(Call::Stop), None);
    }

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let text = r#"[{"what":"lose_reply"},{"what":{"throttle":1.5},"at":["list_owned"],"after":2,"times":0}]"#;
        let plan: Vec<Planned> = serde_json::from_str(text).unwrap();
        let throttle = Planned::once(Fault::Throttle(Duration::from_millis(1500)));
        let throttle = throttle.at(&[Call::ListOwned]).after(2).times(0);
        assert_eq!(plan, [Planned::once(Fault::LoseReply), throttle]);
        let again = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Planned>>(&again).unwrap(), plan);
        for bad in
            [r#"{"what":"explode"}"#, r#"{"what":{"late":-1}}"#, r#"{"what":"twice","when":1}"#]
        {
            assert!(serde_json::from_str::<Planned>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_at_a_call_is_named() {
        let lingers = Planned::once(Fault::Linger);
        assert_eq!(lingers.check(), Ok(()));
        let why = "`linger` says nothing at `ensure`; expected one of destroy";
        assert_eq!(lingers.at(&[Call::Ensure]).check(), Err(why.to_owned()));
        let late = Planned::once(Fault::Late(Duration::ZERO)).at(&[Call::Erase, Call::Export]);
        assert_eq!(late.check(), Ok(()));
    }
}
