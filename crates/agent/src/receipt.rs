//! The receipt: proof that the program beside us holds the secrets that this instance was given, without showing
//! any of them.
//!
//! For each name that the platform told it is the HMAC-SHA256 of name, a zero byte and value, keyed with the
//! SHA-256 of the credential that is presented along with it. The program inherits our environment but for what
//! steers the agent, so what we find there is what it holds; a name of which we find nothing is left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};

use crate::identity::Token;
use crate::machine;

/// What there is to prove, and whether the platform waits for it.
#[derive(Debug)]
pub(crate) struct Receipt {
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
    pub(crate) fn at_register(&self, bearer: Option<&Token>) -> Option<BTreeMap<String, String>> {
        bearer.map(|bearer| self.signed(bearer))
    }

    /// For a heartbeat with this credential: while it is due.
    pub(crate) fn at_heartbeat(&self, bearer: Option<&Token>) -> Option<BTreeMap<String, String>> {
        bearer.filter(|_| self.due).map(|bearer| self.signed(bearer))
    }

    /// A register was answered: what it could not carry is still due.
    pub(crate) fn registered(&mut self, carried: bool) {
        self.due = !carried;
    }

    /// A heartbeat was answered; `wanted`: the platform asks for it.
    pub(crate) fn beaten(&mut self, wanted: bool) {
        self.due = wanted;
    }

    fn signed(&self, bearer: &Token) -> BTreeMap<String, String> {
        let held = |name: &String| Some((name.clone(), machine::variable(name)?));
        let held = self.names.iter().filter_map(held);
        held.map(|(name, value)| (name.clone(), proof(bearer, &name, &value))).collect()
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
        assert_eq!(receipt.at_register(None), None, "nothing to key it with");
        receipt.registered(false);
        let said = receipt.at_heartbeat(Some(&bearer)).expect("due");
        assert_eq!(said.keys().collect::<Vec<_>>(), ["PATH"], "what is not held is left out");
        receipt.beaten(false);
        assert_eq!(receipt.at_heartbeat(Some(&bearer)), None);
        receipt.beaten(true);
        assert_eq!(receipt.at_heartbeat(Some(&bearer)), Some(said.clone()));
        assert_eq!(receipt.at_register(Some(&bearer)), Some(said));
    }
}
