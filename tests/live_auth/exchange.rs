//! One exchange with known inputs, as a row of `auth/vectors/live.json`.

use std::{fmt::Write, num::NonZeroU32, path::Path, process::Command};

use auth::{Credentials, Negotiation, Policy, Randomness, Secret, SequenceNumber, TransactionId};
use serde_json::{Value, json};
use soft_roce::target::TargetRoot;

use super::queue::Queue;

/// Inputs of our side to one exchange.
pub(super) struct Inputs<'a> {
    pub(super) note: String,
    pub(super) host_nqn: &'a str,
    pub(super) subsystem_nqn: &'a str,
    pub(super) host_secret: &'a str,
    pub(super) controller_secret: Option<&'a str>,
    pub(super) transaction_id: u16,
    pub(super) s2: NonZeroU32,
    pub(super) challenge_random: Vec<u8>,
    pub(super) exponent_random: Vec<u8>,
}

impl Inputs<'_> {
    /// Plays it with the target, which must accept us, and prove itself if asked to.
    pub(super) fn run(&self) -> Value {
        let credentials = self.credentials();
        let negotiation = Negotiation {
            credentials: &credentials,
            policy: Policy::default(),
            host_nqn: self.host_nqn,
            subsystem_nqn: self.subsystem_nqn,
            transaction_id: TransactionId(self.transaction_id),
        };
        let mut queue = Queue::connect(self.host_nqn, self.subsystem_nqn);
        let (negotiate, state) = negotiation.start().expect("two names");
        queue.send(&negotiate);
        let challenge = queue.receive();
        let (reply, state) = state
            .handle(&challenge, self.randomness(), SequenceNumber(self.s2))
            .unwrap_or_else(|failure| panic!("{}: {failure}", self.note));
        queue.send(&reply);
        let success1 = queue.receive();
        let (success2, how) =
            state.handle(&success1).unwrap_or_else(|failure| panic!("{}: {failure}", self.note));
        let mut messages = vec![negotiate, challenge, reply, success1];
        if let Some(success2) = success2 {
            queue.send(&success2);
            messages.push(success2);
        }
        let messages: Vec<_> = messages.iter().map(|message| hexadecimal(message)).collect();
        json!({
            "note": self.note,
            "hash_min": 1,
            "group_min": 0,
            "host_nqn": self.host_nqn,
            "subsystem_nqn": self.subsystem_nqn,
            "transaction_id": self.transaction_id,
            "s2": self.s2,
            "challenge_random": hexadecimal(&self.challenge_random),
            "exponent_random": hexadecimal(&self.exponent_random),
            "host_secret": self.host_secret,
            "controller_secret": self.controller_secret,
            "messages": messages,
            "outcome": {"authenticated": {
                "hash": how.hash.0,
                "group": how.group.0,
                "controller_proved": how.controller_proved,
            }},
        })
    }

    fn credentials(&self) -> Credentials {
        let parse = |text: &str| Secret::parse(text).expect("a valid secret");
        match self.controller_secret {
            None => Credentials::one_way(parse(self.host_secret)),
            Some(controller) => Credentials::two_way(parse(self.host_secret), parse(controller))
                .expect("two secrets"),
        }
    }

    fn randomness(&self) -> Randomness {
        let mut parts = [&self.challenge_random, &self.exponent_random].into_iter();
        Randomness::draw(|buffer| {
            buffer.copy_from_slice(parts.next().expect("two draws"));
            Ok::<_, ()>(())
        })
        .expect("it is there")
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The kernel's release.
pub(super) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Sets an attribute of a host of the target.
pub(super) fn set_host(host: &str, attribute: &str, value: &str) {
    let set = TargetRoot::guest().set(&["host", host, attribute, value]);
    set.unwrap_or_else(|error| panic!("{attribute} = {value}: {error}"));
}

/// Has both sides of all rows computed again by another implementation.
pub(super) fn check_in_python(rows: &[Value]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.json");
    let file = json!({"version": 1, "transcripts": rows});
    std::fs::write(&path, file.to_string()).expect("the folder is ours");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../auth/vectors/check.py");
    let mut python = Command::new("python3");
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(program).arg(&path);
    let output = match python.output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: python3: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert_eq!(said, format!("rows.json: {} exchanges are right\n", rows.len()));
}
