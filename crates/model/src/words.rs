//! A world in a few lines.

use std::fmt;

use crate::world::{Mind, Token, World};

struct Named(Option<Token>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "nothing"),
            Some(Token::Credential(at)) => write!(f, "credential {at}"),
            Some(Token::Passport(at)) => write!(f, "passport {at}"),
            Some(Token::Key(at)) => write!(f, "key {at}"),
            Some(Token::Origin(at)) => write!(f, "the mark of passport {at}"),
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  generation {} is current, {} the newest; online: {}, restart due: {}, opened: {}, rotations {}/{}",
            self.current,
            self.newest,
            self.online,
            self.restart_due,
            self.opened,
            self.rotated,
            self.wanted
        )?;
        for (at, it) in self.credentials.iter().enumerate() {
            let late = if it.late { ", too late" } else { "" };
            let key = it.key.map(|key| format!(", for {}", Named(Some(key)))).unwrap_or_default();
            writeln!(
                f,
                "  credential {at}: of generation {}, {}{late}{key}",
                it.generation,
                it.state.as_str()
            )?;
        }
        for (at, it) in self.passports.iter().enumerate() {
            writeln!(f, "  passport {at}: of generation {}, {:?}", it.generation, it.state)?;
        }
        for it in &self.rows {
            let silent = if it.silent { ", silent" } else { "" };
            let overdue = if it.overdue { ", overdue" } else { "" };
            let phase = it.phase.as_str();
            writeln!(
                f,
                "  row: generation {}, born {}, {phase}{silent}{overdue}",
                it.generation, it.born
            )?;
        }
        for (at, it) in self.agents.iter().enumerate() {
            let superseded = if it.superseded { ", superseded" } else { "" };
            let gone = if it.unstoppable { ", not seen by its backend" } else { "" };
            write!(f, "  agent {at}: born {}{superseded}{gone}, ", it.born)?;
            match &it.mind {
                Mind::Ours { holdings, disk, turn, .. } => {
                    let (held, next) = (holdings.held().copied(), holdings.next().copied());
                    write!(
                        f,
                        "holds {} and {}, file {}",
                        Named(held),
                        Named(next),
                        Named(disk.token)
                    )?;
                    writeln!(f, " and {}, {:?}", Named(disk.next), turn)?;
                }
                Mind::Foreign { file, held, registered } => {
                    let (file, held) = (Named(*file), Named(*held));
                    writeln!(f, "holds {held}, file {file}, registered: {registered}")?;
                }
            }
        }
        if let Some(it) = &self.migration {
            writeln!(f, "  {it:?}")?;
        }
        if let Some(it) = &self.wire {
            writeln!(f, "  a copy is kept: {:?} with {}", it.call, Named(it.bearer))?;
        }
        if self.order.is_some() {
            writeln!(f, "  a backend has yet to begin")?;
        }
        Ok(())
    }
}
