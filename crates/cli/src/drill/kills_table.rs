//! The table of kills, as it is printed, and what it comes to. Pure.

use ligand_domain::migration::Stage;
use serde::Serialize;

use crate::error::{CommandError, CommandResult, Kind};
use crate::text;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Victim {
    /// The server.
    Platform,
    /// What runs instances for it.
    Fleet,
    /// The instance that the workspace leaves.
    Source,
    /// The instance that it goes to.
    Target,
}

impl Victim {
    pub(super) const ALL: [Self; 4] = [Self::Platform, Self::Fleet, Self::Source, Self::Target];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Fleet => "fleet",
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// What came of one blow.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    pub(super) phase: &'static str,
    pub(super) victim: Victim,
    /// Nothing was to be struck, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) skipped: Option<&'static str>,
    /// Somebody was killed.
    #[serde(skip)]
    pub(super) hit: bool,
    /// The phase in which the blow fell.
    pub(super) struck_in: String,
    /// How it ended: `migrated`, `rolled-back`.
    pub(super) state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    /// Seconds from the order until it was over.
    pub(super) seconds: f64,
    /// Seconds that the turn took which waited longest.
    pub(super) longest: f64,
    pub(super) turns: usize,
    /// Turns whose sender was told that they may have run: their agent was killed amid them.
    pub(super) interrupted: usize,
    pub(super) lost: Vec<String>,
    pub(super) doubled: Vec<String>,
    pub(super) leaks: Vec<String>,
    /// The workspace is online, and answers.
    pub(super) serves: bool,
    /// It could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Cell {
    pub(super) fn of(phase: Stage, victim: Victim) -> Self {
        Self {
            phase: phase.as_str(),
            victim,
            skipped: None,
            hit: false,
            struck_in: String::new(),
            state: String::new(),
            cause: None,
            seconds: 0.0,
            longest: 0.0,
            turns: 0,
            interrupted: 0,
            lost: Vec::new(),
            doubled: Vec::new(),
            leaks: Vec::new(),
            serves: false,
            error: None,
        }
    }

    /// Whether everything that has to hold does.
    pub(super) fn sound(&self) -> bool {
        let killed = matches!(self.victim, Victim::Source | Victim::Target);
        let whole = self.lost.is_empty() && self.doubled.is_empty() && self.leaks.is_empty();
        let whole = whole && (killed || self.interrupted == 0);
        let over = ["migrated", "rolled-back"].contains(&self.state.as_str());
        self.skipped.is_some() || (self.error.is_none() && whole && over && self.serves)
    }

    /// In the table.
    pub(super) fn brief(&self) -> String {
        if let Some(why) = self.skipped {
            return why.to_owned();
        }
        if self.error.is_some() {
            return "NOT RUN".to_owned();
        }
        let word = if self.sound() { self.state.replace('-', " ") } else { "BROKEN".to_owned() };
        let fell = if self.struck_in == self.phase {
            String::new()
        } else {
            format!(", struck in {}", self.struck_in)
        };
        let (lost, doubled, left) = (self.lost.len(), self.doubled.len(), self.leaks.len());
        format!("{word}, {lost}/{doubled}/{left}, {:.1} s{fell}", self.seconds)
    }

    /// While the table is made.
    pub(super) fn line(&self) -> String {
        let cause = self.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        let error = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let wrong = match self.sound() || self.error.is_some() {
            true => String::new(),
            false => format!(
                "; lost [{}], doubled [{}], left over [{}], serves: {}",
                self.lost.join(", "),
                self.doubled.join(", "),
                self.leaks.join(", "),
                self.serves
            ),
        };
        let of = format!("{} × {}", self.phase, self.victim.as_str());
        text::plain(&format!(
            "{of:<20}  {}, {} turns, the longest {:.1} s, {} interrupted{cause}{error}{wrong}",
            self.brief(),
            self.turns,
            self.longest,
            self.interrupted,
        ))
    }
}

pub(super) fn judge(done: &[Cell]) -> CommandResult {
    let named = |of: &dyn Fn(&&Cell) -> bool| {
        let names = done.iter().filter(of);
        let names = names.map(|cell| format!("{} × {}", cell.phase, cell.victim.as_str()));
        names.collect::<Vec<_>>().join(", ")
    };
    let broken = named(&|cell| !cell.sound() && cell.error.is_none());
    let not_run = named(&|cell| cell.error.is_some());
    if !broken.is_empty() {
        let error = anyhow::anyhow!("a law was broken at: {broken}");
        return Err(CommandError::new(Kind::Broken, error));
    }
    match not_run.is_empty() {
        true => Ok(()),
        false => Err(CommandError::failed(format!("could not be carried out: {not_run}"))),
    }
}

pub(super) fn drawn(chosen: &[Stage], done: &[Cell]) -> String {
    let rows = chosen.iter().map(|phase| {
        let of = |victim| {
            let mut cells = done.iter();
            cells.find(|cell| cell.phase == phase.as_str() && cell.victim == victim)
        };
        let cells = Victim::ALL.map(|victim| of(victim).map(Cell::brief).unwrap_or_default());
        std::iter::once(phase.as_str().to_owned()).chain(cells).collect()
    });
    let header = ["KILLED AT", "PLATFORM", "FLEET", "SOURCE", "TARGET"];
    let sum = |of: fn(&Cell) -> usize| done.iter().map(of).sum::<usize>();
    let struck = || done.iter().filter(|cell| cell.skipped.is_none());
    let ended = |state: &str| struck().filter(|cell| cell.sound() && cell.state == state).count();
    format!(
        "\n{}\nIn a cell: how it ended, turns lost / turns doubled / things left over, and how long it took.\n\
         {} blows: {} migrated, {} rolled back, {} neither\n\
         {} turns: {} interrupted by their agent's end, {} lost, {} doubled, {} leaks\n",
        text::table(&header, rows),
        struck().count(),
        ended("migrated"),
        ended("rolled-back"),
        struck().filter(|cell| !cell.sound()).count(),
        sum(|cell| cell.turns),
        sum(|cell| cell.interrupted),
        sum(|cell| cell.lost.len()),
        sum(|cell| cell.doubled.len()),
        sum(|cell| cell.leaks.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::kills::row;
    use super::*;

    fn cell(phase: &str, victim: Victim) -> Cell {
        let phase = row(phase).unwrap().stage();
        Cell {
            struck_in: phase.as_str().to_owned(),
            state: "migrated".to_owned(),
            seconds: 2.34,
            longest: 1.5,
            turns: 20,
            serves: true,
            ..Cell::of(phase, victim)
        }
    }

    #[test]
    fn a_cell_is_sound_when_it_ended_and_nothing_is_wrong() {
        let good = cell("hold", Victim::Source);
        assert!(good.sound());
        let wrong: [fn(&mut Cell); 6] = [
            |cell| cell.lost.push("turn-1".into()),
            |cell| cell.doubled.push("turn-1".into()),
            |cell| cell.leaks.push("data at east".into()),
            |cell| cell.serves = false,
            |cell| "running".clone_into(&mut cell.state),
            |cell| cell.error = Some("no room".into()),
        ];
        for (number, wrong) in wrong.into_iter().enumerate() {
            let mut cell = good.clone();
            wrong(&mut cell);
            assert!(!cell.sound(), "{number}");
            assert!(judge(&[good.clone(), cell]).is_err(), "{number}");
        }
        assert!(judge(&[good]).is_ok());
    }

    #[test]
    fn the_table_has_a_row_for_each_phase() {
        let rows = ["hold", "probe"].map(|name| row(name).unwrap().stage());
        let mut back = cell("probe", Victim::Target);
        "rolled-back".clone_into(&mut back.state);
        let mut late = cell("hold", Victim::Source);
        "quiesce".clone_into(&mut late.struck_in);
        let none = Cell { skipped: Some("nothing there yet"), ..Cell::of(rows[0], Victim::Fleet) };
        insta::assert_snapshot!(drawn(&rows, &[back, late, none]), @"

        KILLED AT  PLATFORM  FLEET              SOURCE                                     TARGET
        hold                 nothing there yet  migrated, 0/0/0, 2.3 s, struck in quiesce
        probe                                                                              rolled back, 0/0/0, 2.3 s

        In a cell: how it ended, turns lost / turns doubled / things left over, and how long it took.
        2 blows: 1 migrated, 1 rolled back, 0 neither
        40 turns: 0 interrupted by their agent's end, 0 lost, 0 doubled, 0 leaks
        ");
    }
}
