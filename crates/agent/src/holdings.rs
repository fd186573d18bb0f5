//! What the agent holds, in memory and on disk. Pure: what is to be written is a list, carried out elsewhere.
//!
//! | file | what | lives |
//! | --- | --- | --- |
//! | `.auth_token` | the credential in hand | for ever |
//! | `.auth_token.next` | a newer one that has not worked yet | until it has worked, or was refused and the one in hand works |
//! | `.register_key` | `Idempotency-Key` of a register that may mint | until what it brought has worked |
//! | `.auth_token.generation` | with which start-up data the others were obtained | for ever |
//! | `.auth_token.previous` | one that gave way to a passport | until another one has worked; never presented |
//!
//! Two laws. What is known to have worked last is on disk until another one has worked. And whatever stops it
//! between two writes, the next start finds what the platform accepts: the file in hand if the newer one was
//! never used, the newer one if it was.

use crate::guards::{Guard, Guards};
use crate::session::{Answer, Bearer, Facts};

/// A file of the credential directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The credential in hand.
    Token,
    /// The newer one beside it.
    Next,
    /// The key of a register.
    Key,
    /// The name of the start-up data that the others were obtained with.
    Origin,
    /// What gave way to a passport.
    Aside,
}

/// What the files hold. `T` is a credential, or another text of that kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Disk<T> {
    /// [`Slot::Token`].
    pub token: Option<T>,
    /// [`Slot::Next`].
    pub next: Option<T>,
    /// [`Slot::Key`].
    pub key: Option<T>,
    /// [`Slot::Origin`].
    pub origin: Option<T>,
    /// [`Slot::Aside`].
    pub aside: Option<T>,
}

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self { token: None, next: None, key: None, origin: None, aside: None }
    }
}

impl<T> Disk<T> {
    /// The same files with other values, for a checker that names values anew.
    #[must_use]
    pub fn map(self, mut change: impl FnMut(T) -> T) -> Self {
        Self {
            token: self.token.map(&mut change),
            next: self.next.map(&mut change),
            key: self.key.map(&mut change),
            origin: self.origin.map(&mut change),
            aside: self.aside.map(&mut change),
        }
    }
}

impl<T: Clone> Disk<T> {
    /// One file.
    pub fn slot(&mut self, slot: Slot) -> &mut Option<T> {
        match slot {
            Slot::Token => &mut self.token,
            Slot::Next => &mut self.next,
            Slot::Key => &mut self.key,
            Slot::Origin => &mut self.origin,
            Slot::Aside => &mut self.aside,
        }
    }

    /// The effect of one write.
    pub fn apply(&mut self, write: &Write<T>) {
        match write {
            Write::Put(slot, value) => *self.slot(*slot) = Some(value.clone()),
            Write::Remove(slot) => *self.slot(*slot) = None,
        }
    }
}

/// One step that a crash leaves undone or done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Write<T> {
    /// The whole content of a file, on disk when the step is done.
    Put(Slot, T),
    /// No such file.
    Remove(Slot),
}

/// A right to become one generation, from the start-up data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Passport<T> {
    /// Presented as bearer at register.
    pub value: T,
    /// Names what is obtained with it; no secret.
    pub origin: T,
}

/// What this agent proves itself with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holdings<T> {
    guards: Guards,
    /// The files, as last written or read.
    disk: Disk<T>,
    held: Option<T>,
    /// `held` is newer than its file.
    unsaved: bool,
    /// `held` has worked since this start.
    proved: bool,
    next: Option<T>,
    /// `next` was refused; it goes when `held` works.
    refused: bool,
    /// `next` was minted because nothing else is accepted: it is used even where it cannot be written.
    required: bool,
    key: Option<T>,
    origin: Option<T>,
    aside: Option<T>,
    passport: Option<T>,
}

impl<T> Holdings<T> {
    /// The same holdings with other values, for a checker that names values anew.
    #[must_use]
    pub fn map(self, mut change: impl FnMut(T) -> T) -> Self {
        Self {
            disk: self.disk.map(&mut change),
            held: self.held.map(&mut change),
            next: self.next.map(&mut change),
            key: self.key.map(&mut change),
            origin: self.origin.map(&mut change),
            aside: self.aside.map(&mut change),
            passport: self.passport.map(&mut change),
            ..self
        }
    }
}

impl<T: Clone + PartialEq> Holdings<T> {
    /// At a start, from what the files hold and what the start-up data bring. Where these bring a passport,
    /// files that were not obtained with it are another instance's, copied with the data or left behind: they
    /// are put aside.
    pub fn open(disk: Disk<T>, passport: Option<Passport<T>>, guards: Guards) -> Self {
        let (value, origin) = passport.map(|it| (it.value, it.origin)).unzip();
        let foreign = origin.is_some() && origin != disk.origin;
        let mut it = Self {
            guards,
            held: disk.token.clone(),
            unsaved: false,
            proved: false,
            next: disk.next.clone().filter(|next| Some(next) != disk.token.as_ref()),
            refused: false,
            required: false,
            key: disk.key.clone(),
            origin: disk.origin.clone(),
            aside: disk.aside.clone(),
            passport: value,
            disk,
        };
        if foreign && guards.hold(Guard::PassportBeforeFile) {
            it.aside = it.held.take().or(it.aside);
            (it.next, it.key, it.origin) = (None, None, origin);
        }
        it
    }

    /// The credential in hand.
    pub fn held(&self) -> Option<&T> {
        self.held.as_ref()
    }

    /// The newer one beside it.
    pub fn next(&self) -> Option<&T> {
        self.next.as_ref()
    }

    /// The key of the register that is to be sent, once there is one.
    pub fn key(&self) -> Option<&T> {
        self.key.as_ref()
    }

    /// The key of the register that is about to be sent; drawn where there is none. Carry out
    /// [`Self::plan`] before it is sent.
    pub fn key_or(&mut self, draw: impl FnOnce() -> T) -> &T {
        self.key.get_or_insert_with(draw)
    }

    /// The value that a call presents.
    pub fn presented(&self, bearer: Bearer) -> Option<&T> {
        match bearer {
            Bearer::Held => self.held.as_ref(),
            Bearer::Next => self.next.as_ref(),
            Bearer::Passport => self.passport.as_ref(),
            Bearer::Nothing => None,
        }
    }

    /// What the next decision depends on; `file_differs` is what [`Self::learn`] said.
    pub fn facts(&self, file_differs: bool, jitter: f64) -> Facts {
        let written = self.next == self.disk.next || !self.guards.hold(Guard::WriteBeforeUse);
        Facts {
            file_differs,
            holds: self.held.is_some(),
            has_next: self.next.is_some(),
            next_ready: self.next.is_some() && !self.refused && (written || self.required),
            has_passport: self.passport.is_some(),
            fetch: false,
            jitter,
        }
    }

    /// Take from an answer to a call as `bearer` what must outlive it. `file` reads the token file; it is
    /// asked after a refusal only. Returns whether it holds another credential than the one presented.
    pub fn learn(
        &mut self,
        answer: &Answer<T>,
        bearer: Bearer,
        file: impl FnOnce() -> Option<T>,
    ) -> bool {
        match answer {
            Answer::Registered { token: Some(token), .. } => self.minted(token.clone()),
            Answer::Rotated { token } => self.rotated(token.clone()),
            Answer::Registered { token: None, .. } | Answer::Beaten { .. } => self.worked(bearer),
            Answer::Refused(_) if bearer == Bearer::Held => {
                let presented = self.held.clone();
                self.reread(file);
                return self.held.is_some() && self.held != presented;
            }
            Answer::Refused(_) => self.refused |= bearer == Bearer::Next,
            Answer::Fetched | Answer::Rejected { .. } | Answer::Failed { .. } => {}
        }
        false
    }

    /// Read the file again. A missing one means no credential. While the one in hand could not be written,
    /// a file that is missing or unchanged changes nothing: the newer value exists nowhere else.
    pub fn reread(&mut self, file: impl FnOnce() -> Option<T>) {
        if !self.guards.hold(Guard::RereadOnce) {
            return;
        }
        let found = file();
        let replaced = found.is_some() && found != self.disk.token;
        if replaced || !self.unsaved {
            self.proved &= found == self.held;
            self.held = found.clone();
            self.unsaved = false;
            self.next = self.next.take().filter(|next| Some(next) != self.held.as_ref());
        }
        self.disk.token = found;
    }

    /// A register brought a credential. In use from now on, whether or not it can be written.
    fn minted(&mut self, token: T) {
        if !self.guards.hold(Guard::KeyKept) {
            self.key = None;
        }
        if self.held.as_ref() == Some(&token) {
            return;
        }
        if self.held.is_none() {
            self.take_up(token);
        } else {
            self.beside(token);
            self.required = true;
        }
    }

    /// A rotation brought one.
    fn rotated(&mut self, token: T) {
        if self.guards.hold(Guard::RotateBeside) {
            self.beside(token);
        } else {
            self.take_up(token);
        }
    }

    fn beside(&mut self, token: T) {
        self.next = Some(token);
        (self.refused, self.required) = (false, false);
    }

    fn take_up(&mut self, token: T) {
        self.held = Some(token);
        (self.unsaved, self.proved) = (true, false);
    }

    /// One of them was accepted without bringing another: what it replaces has done its duty, and the key.
    fn worked(&mut self, bearer: Bearer) {
        match bearer {
            Bearer::Next => {
                if let Some(next) = self.next.take() {
                    self.take_up(next);
                }
            }
            Bearer::Held if self.held.is_some() => {
                if self.refused {
                    self.next = None;
                }
            }
            Bearer::Held | Bearer::Passport | Bearer::Nothing => return,
        }
        (self.proved, self.refused, self.required) = (true, false, false);
        (self.key, self.aside) = (None, None);
    }

    /// What is to be written, in this order, so that the files say what memory says; nothing where they do.
    /// Each step that was done is told to [`Self::done`]; where one fails the later ones are left alone.
    pub fn plan(&self) -> Vec<Write<T>> {
        let mut disk = self.disk.clone();
        let mut plan = Vec::new();
        let mut step = |disk: &mut Disk<T>, slot: Slot, value: &Option<T>| {
            if disk.slot(slot) == value {
                return;
            }
            let write = value.clone().map_or(Write::Remove(slot), |value| Write::Put(slot, value));
            disk.apply(&write);
            plan.push(write);
        };
        if self.origin != disk.origin {
            // The mark last: with it, whatever is there counts as obtained with the passport.
            step(&mut disk, Slot::Aside, &self.aside);
            for slot in [Slot::Token, Slot::Next, Slot::Key] {
                step(&mut disk, slot, &None);
            }
            step(&mut disk, Slot::Origin, &self.origin);
        }
        let early = self.guards.hold(Guard::WriteBeforeUse);
        if self.key.is_some() {
            step(&mut disk, Slot::Key, &self.key);
        }
        if self.unsaved && (early || self.proved) {
            step(&mut disk, Slot::Token, &self.held);
        }
        if self.next.is_some() && early {
            step(&mut disk, Slot::Next, &self.next);
        }
        // What is dropped goes after all that replaces it.
        for (slot, kept) in
            [(Slot::Next, &self.next), (Slot::Key, &self.key), (Slot::Aside, &self.aside)]
        {
            if kept.is_none() {
                step(&mut disk, slot, &None);
            }
        }
        plan
    }

    /// A step of the plan is on disk.
    pub fn done(&mut self, write: &Write<T>) {
        if let Write::Put(Slot::Token, value) = write {
            self.unsaved &= self.held.as_ref() != Some(value);
        }
        self.disk.apply(write);
    }

    /// Somebody else has written the token file since: that one is newer, and stays. What is in hand goes on
    /// being used; a refusal will find the file.
    pub fn overtaken(&mut self, found: Option<T>) {
        self.disk.token = found;
        self.unsaved = false;
    }

    /// What is known of the token file.
    pub fn file(&self) -> Option<&T> {
        self.disk.token.as_ref()
    }
}

#[cfg(test)]
#[path = "holdings_tests.rs"]
mod tests;
