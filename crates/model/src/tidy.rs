//! One shape for worlds that differ in names only.

use ligand_domain::credential::PassportState;
use ligand_domain::migration::Program;

use crate::world::{Credential, Mind, Token, World};

impl World {
    /// Drop what nobody can present, and count generations and keys anew.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        self.forget_serials();
        self.drop_unreachable();
        self.renumber();
        self.rekey();
        self
    }

    /// Of which restart the secrets are is asked by migrations alone.
    fn forget_serials(&mut self) {
        if self.migration.is_some() {
            return;
        }
        self.serial = 0;
        let plain = |it: &mut Program| {
            if matches!(it, Program::Runs(_)) {
                *it = Program::Runs(0);
            }
        };
        for agent in &mut self.agents {
            plain(&mut agent.program);
            (agent.turned, agent.lacks, agent.slipped) = (false, false, false);
        }
        self.wire.iter_mut().for_each(|knock| plain(&mut knock.program));
    }

    fn each_token(&mut self, mut change: impl FnMut(Token) -> Token) {
        for agent in &mut self.agents {
            if let Some(at) = agent.passport {
                let Token::Passport(to) = change(Token::Passport(at)) else {
                    unreachable!("its kind stays")
                };
                agent.passport = Some(to);
            }
            match &mut agent.mind {
                Mind::Ours { holdings, disk, .. } => {
                    *holdings = holdings.clone().map(&mut change);
                    *disk = disk.clone().map(&mut change);
                }
                Mind::Foreign { file, held, .. } => {
                    *file = file.map(&mut change);
                    *held = held.map(&mut change);
                }
            }
        }
        for (_, token) in self.fresh.iter_mut().chain(&mut self.order) {
            *token = change(*token);
        }
        self.stolen = self.stolen.map(&mut change);
        if let Some(knock) = &mut self.wire {
            knock.bearer = knock.bearer.map(&mut change);
            knock.key = knock.key.map(&mut change);
        }
    }

    fn drop_unreachable(&mut self) {
        let mut keys = Vec::new();
        self.each_token(|token| {
            if matches!(token, Token::Key(_)) {
                keys.push(token);
            }
            token
        });
        let mut credentials: Vec<bool> =
            self.credentials.iter().map(|c| c.state.is_live()).collect();
        let mut passports: Vec<bool> =
            self.passports.iter().map(|p| p.state == PassportState::Open).collect();
        for (at, credential) in self.credentials.iter().enumerate() {
            // Of one key the newest is looked for; an older one matters only if it was used.
            let newer = |it: &Credential| it.key == credential.key;
            let counts = credential.used || !self.credentials[at + 1..].iter().any(newer);
            let by_key = counts && credential.key.is_some_and(|key| keys.contains(&key));
            credentials[at] |= by_key;
        }
        self.each_token(|token| {
            match token {
                Token::Credential(at) => credentials[usize::from(at)] = true,
                Token::Passport(at) | Token::Origin(at) => passports[usize::from(at)] = true,
                Token::Key(_) => {}
            }
            token
        });
        if credentials.iter().chain(&passports).all(|kept| *kept) {
            return;
        }
        let place = |kept: &[bool], at: u8| {
            let before = kept[..usize::from(at)].iter().filter(|kept| **kept).count();
            u8::try_from(before).expect("few are kept")
        };
        self.each_token(|token| match token {
            Token::Credential(at) => Token::Credential(place(&credentials, at)),
            Token::Passport(at) => Token::Passport(place(&passports, at)),
            Token::Origin(at) => Token::Origin(place(&passports, at)),
            Token::Key(_) => token,
        });
        for credential in &mut self.credentials {
            let known = credential.passport.filter(|at| passports[usize::from(*at)]);
            credential.passport = known.map(|at| place(&passports, at));
        }
        let mut kept = credentials.iter();
        self.credentials.retain(|_| *kept.next().expect("one for each"));
        let mut kept = passports.iter();
        self.passports.retain(|_| *kept.next().expect("one for each"));
    }

    fn each_generation(&mut self, mut change: impl FnMut(&mut u8)) {
        [&mut self.current, &mut self.newest, &mut self.writer].into_iter().for_each(&mut change);
        self.credentials.iter_mut().for_each(|it| change(&mut it.generation));
        self.passports.iter_mut().for_each(|it| change(&mut it.generation));
        for row in &mut self.rows {
            change(&mut row.generation);
            change(&mut row.born);
        }
        for agent in &mut self.agents {
            change(&mut agent.born);
            change(&mut agent.stands);
        }
        self.fresh.iter_mut().chain(&mut self.order).for_each(|it| change(&mut it.0));
        self.half_planned.iter_mut().for_each(&mut change);
        if let Some(it) = &mut self.migration {
            change(&mut it.source);
            change(&mut it.source_born);
            change(&mut it.candidate);
        }
    }

    fn renumber(&mut self) {
        let mut seen: u64 = 1;
        self.each_generation(|generation| seen |= 1 << *generation);
        if (seen + 1).is_power_of_two() {
            return;
        }
        self.each_generation(|generation| {
            let below = seen & ((1 << *generation) - 1);
            *generation = u8::try_from(below.count_ones()).expect("few are left");
        });
    }

    fn rekey(&mut self) {
        let mut known: Vec<Token> = Vec::new();
        let mut name = |token: Token| {
            if !matches!(token, Token::Key(_)) {
                return token;
            }
            let at = known.iter().position(|known| *known == token).unwrap_or(known.len());
            if at == known.len() {
                known.push(token);
            }
            Token::Key(u8::try_from(at).expect("few keys"))
        };
        self.each_token(&mut name);
        for it in &mut self.credentials {
            let at = it.key.and_then(|key| known.iter().position(|known| *known == key));
            it.key = at.map(|at| Token::Key(u8::try_from(at).expect("few keys")));
        }
    }
}
