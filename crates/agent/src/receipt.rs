//! The receipt: proof that the program beside us holds the secrets that this instance was given, without showing
//! any of them.
//!
//! For each name that the platform told it is the HMAC-SHA256 of name, a zero byte and value, keyed with the
//! SHA-256 of the credential that is presented along with it. The program inherits our environment but for what
//! steers the agent, so what we find there is what it holds; a name of which we find nothing is left out. Where we
//! fetched its secrets it holds those; and while it does not run it holds nothing, and there is no receipt.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};

use crate::identity::Token;
use crate::machine;
use crate::steer::Held;

/// What there is to prove, and whether the platform waits for it.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// Of the secrets that came with the start-up data.
    names: Vec<String>,
    /// Goes with the next call that presents a credential.
    due: bool,
}

impl Receipt {
    /// Of the secrets of these names.
    pub(crate) fn of(names: Vec<String>) -> Self {
        Self { names, due: true }
    }

    /// For a register with this credential: always, since whoever registers is judged anew.
    pub(crate) fn at_register(
        &self,
        bearer: Option<&Token>,
        held: &Held<'_>,
    ) -> Option<BTreeMap<String, String>> {
        bearer.and_then(|bearer| self.signed(bearer, held))
    }

    /// For a heartbeat with this credential: while it is due.
    pub(crate) fn at_heartbeat(
        &self,
        bearer: Option<&Token>,
        held: &Held<'_>,
    ) -> Option<BTreeMap<String, String>> {
        self.at_register(bearer.filter(|_| self.due), held)
    }

    /// A register was answered: what it could not carry is still due.
    pub(crate) fn registered(&mut self, carried: bool) {
        self.due = !carried;
    }

    /// A heartbeat was answered; `wanted`: the platform asks for it. What it could not carry is still due.
    pub(crate) fn beaten(&mut self, carried: bool, wanted: bool) {
        self.due = wanted || self.due && !carried;
    }

    /// The program is about to hold something else.
    pub(crate) fn renewed(&mut self) {
        self.due = true;
    }

    fn signed(&self, bearer: &Token, held: &Held<'_>) -> Option<BTreeMap<String, String>> {
        let prove = |name: &String, value: &str| (name.clone(), proof(bearer, name, value));
        match held {
            Held::Nothing => None,
            Held::These(values) => {
                let all = values.secrets().iter();
                Some(all.map(|(name, value)| prove(name, value)).collect())
            }
            Held::Inherited => {
                let found = |name: &String| Some(prove(name, &machine::variable(name)?));
                Some(self.names.iter().filter_map(found).collect())
            }
        }
    }
}

fn proof(bearer: &Token, name: &str, value: &str) -> String {
    let key = digest::digest(&digest::SHA256, bearer.reveal().as_bytes());
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()));
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(value.as_bytes());
    URL_SAFE_NO_PAD.encode(context.sign())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Values;

    fn token(text: &str) -> Token {
        Token::parse(text).expect("a credential")
    }

    /// The platform has the same vector.
    #[test]
    fn a_proof_is_what_the_protocol_says() {
        let proved = proof(&token("the-credential"), "API_KEY", "hunter2");
        assert_eq!(proved, "t2yKnRm9JkiJwRnn7fsVZwee433N2w20ts_k4bsCDyY");
        assert_ne!(proved, proof(&token("another"), "API_KEY", "hunter2"));
    }

    #[test]
    fn it_is_due_until_the_platform_has_it() {
        let bearer = token("the-credential");
        let names = ["PATH".to_owned(), "NOT_SET_ANYWHERE".to_owned()];
        let mut receipt = Receipt::of(names.to_vec());
        let held = Held::Inherited;
        assert_eq!(receipt.at_register(None, &held), None, "nothing to key it with");
        receipt.registered(false);
        let said = receipt.at_heartbeat(Some(&bearer), &held).expect("due");
        assert_eq!(said.keys().collect::<Vec<_>>(), ["PATH"], "what is not held is left out");
        receipt.beaten(true, false);
        assert_eq!(receipt.at_heartbeat(Some(&bearer), &held), None);
        receipt.beaten(false, true);
        assert_eq!(receipt.at_heartbeat(Some(&bearer), &held), Some(said.clone()));
        assert_eq!(receipt.at_register(Some(&bearer), &held), Some(said));
    }

    #[test]
    fn of_what_was_fetched_it_says_what_the_program_holds_once_it_runs() {
        let bearer = token("the-credential");
        let mut receipt = Receipt::of(Vec::new());
        assert_eq!(receipt.at_register(Some(&bearer), &Held::Nothing), None);
        receipt.registered(false);
        receipt.beaten(false, false);
        let fetched = [("API_KEY", "hunter2"), ("HOME", "/")];
        let fetched = fetched.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let values = Values::new(fetched.into(), |_| None);
        let said = receipt.at_heartbeat(Some(&bearer), &Held::These(&values)).expect("still due");
        assert_eq!(said.keys().collect::<Vec<_>>(), ["API_KEY"]);
        assert_eq!(said["API_KEY"], proof(&bearer, "API_KEY", "hunter2"));
        receipt.beaten(true, false);
        assert_eq!(receipt.at_heartbeat(Some(&bearer), &Held::These(&values)), None);
        receipt.renewed();
        assert!(receipt.at_heartbeat(Some(&bearer), &Held::These(&values)).is_some());
    }
}
