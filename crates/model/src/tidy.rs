//! One shape for worlds that differ in names only.

use ligand_domain::credential::PassportState;

use crate::world::{Files, Token, World};

impl World {
    /// Drop what nobody can present, and count generations and keys anew.
    #[must_use]
    pub fn tidied(mut self) -> Self {
        self.drop_unreachable();
        self.renumber();
        self.rekey();
        self
    }

    fn each_token(&mut self, mut change: impl FnMut(&mut Token)) {
        let files = |files: &mut Files, change: &mut dyn FnMut(&mut Token)| {
            files.held.iter_mut().chain(&mut files.previous).for_each(change);
        };
        for agent in &mut self.agents {
            files(&mut agent.disk, &mut change);
            files(&mut agent.memory, &mut change);
            if let Some(at) = &mut agent.passport {
                let mut token = Token::Passport(*at);
                change(&mut token);
                if let Token::Passport(to) = token {
                    *at = to;
                }
            }
        }
        let loose = [&mut self.fresh, &mut self.order];
        loose.into_iter().flatten().for_each(|(_, token)| change(token));
        self.stolen.iter_mut().for_each(&mut change);
        self.wire.iter_mut().filter_map(|knock| knock.bearer.as_mut()).for_each(change);
    }

    fn each_key(&self) -> impl Iterator<Item = u8> {
        let own = self.agents.iter().flat_map(|agent| [agent.disk.key, agent.memory.key]);
        own.chain(self.wire.map(|knock| knock.key)).flatten()
    }

    fn drop_unreachable(&mut self) {
        let keys: Vec<u8> = self.each_key().collect();
        let mut credentials: Vec<bool> = self.credentials.iter().map(|c| c.state.is_live()).collect();
        let mut passports: Vec<bool> =
            self.passports.iter().map(|p| p.state == PassportState::Open).collect();
        for (at, credential) in self.credentials.iter().enumerate() {
            let by_key = credential.key.is_some_and(|key| keys.contains(&key));
            let chosen = self.chosen.is_some_and(|bits| bits >> at & 1 == 1);
            credentials[at] |= by_key || chosen;
        }
        self.each_token(|token| match token {
            Token::Credential(at) => credentials[usize::from(*at)] = true,
            Token::Passport(at) => passports[usize::from(*at)] = true,
        });
        if credentials.iter().chain(&passports).all(|kept| *kept) {
            return;
        }
        let place = |kept: &[bool], at: u8| {
            let before = kept[..usize::from(at)].iter().filter(|kept| **kept).count();
            u8::try_from(before).expect("few are kept")
        };
        self.each_token(|token| match token {
            Token::Credential(at) => *at = place(&credentials, *at),
            Token::Passport(at) => *at = place(&passports, *at),
        });
        if let Some(bits) = self.chosen {
            let kept = (0..self.credentials.len()).filter(|at| credentials[*at]);
            let moved = kept.enumerate().filter(|(_, at)| bits >> at & 1 == 1);
            self.chosen = Some(moved.fold(0, |bits, (to, _)| bits | 1 << to));
        }
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
        self.agents.iter_mut().for_each(|it| change(&mut it.born));
        self.fresh.iter_mut().chain(&mut self.order).for_each(|it| change(&mut it.0));
        self.half_planned.iter_mut().for_each(&mut change);
        self.migration.iter_mut().for_each(|it| change(&mut it.candidate));
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
        let mut known: Vec<u8> = Vec::new();
        for key in self.each_key() {
            if !known.contains(&key) {
                known.push(key);
            }
        }
        let name = |key: &mut Option<u8>| {
            *key = key.and_then(|key| {
                let at = known.iter().position(|known| *known == key)?;
                Some(u8::try_from(at).expect("few keys"))
            });
        };
        for agent in &mut self.agents {
            name(&mut agent.disk.key);
            name(&mut agent.memory.key);
        }
        self.wire.iter_mut().for_each(|knock| name(&mut knock.key));
        self.credentials.iter_mut().for_each(|it| name(&mut it.key));
    }
}
