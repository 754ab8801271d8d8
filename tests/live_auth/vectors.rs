//! The cases of `auth/vectors/vectors.json` with the kernel's target: names, secrets, T_ID, S2, C2
//! and the exponent are those of the file.
//!
//! C1, S1 and the kernel's exponent are its own. So responses can't be those of the file where they
//! enter; the kernel's with the null group is, byte for byte.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Deserialize;
use serde_json::Value;

use super::exchange::{Inputs, check_in_python, hexadecimal, kernel, set_host};

#[derive(Deserialize)]
struct Vectors {
    key_exchanges: Vec<KeyExchange>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct KeyExchange {
    name: String,
    group: u8,
    host_random: String,
    host_public: String,
}

#[derive(Deserialize)]
struct Case {
    number: u32,
    note: String,
    hash: u8,
    group: u8,
    key_exchange: Option<String>,
    host_secret: String,
    host_nqn: String,
    subsystem_nqn: String,
    transaction_id: u16,
    controller: Option<Controller>,
}

#[derive(Deserialize)]
struct Controller {
    secret: String,
    s2: NonZeroU32,
    c2: String,
    response: String,
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = (0..hexadecimal.len()).step_by(2);
    let byte = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).expect("hexadecimal");
    pairs.map(byte).collect()
}

/// Bytes with zeros behind them.
fn padded(hexadecimal: &str, length: usize) -> Vec<u8> {
    let mut bytes = bytes(hexadecimal);
    bytes.resize(length, 0);
    bytes
}

const NVMET: &str = "/sys/kernel/config/nvmet";

/// Subsystems and hosts with the names of the file, made as they come.
struct Names(HashSet<(String, String)>);

impl Names {
    /// Has the target know the host, and offer it the subsystem.
    fn offer(&mut self, host: &str, subsystem: &str) {
        if !self.0.insert((host.to_owned(), subsystem.to_owned())) {
            return;
        }
        let (host_folder, subsystem_folder) =
            (Path::new(NVMET).join("hosts").join(host), in_subsystems(subsystem));
        for folder in [&host_folder, &subsystem_folder] {
            if !folder.exists() {
                std::fs::create_dir(folder).expect("the target takes any name");
            }
        }
        std::fs::write(subsystem_folder.join("attr_allow_any_host"), "0").expect("an attribute");
        let port = Path::new(NVMET).join("ports/1/subsystems").join(subsystem);
        if !port.exists() {
            symlink(&subsystem_folder, port).expect("the port offers it");
        }
        let allowed = subsystem_folder.join("allowed_hosts").join(host);
        symlink(&host_folder, allowed).expect("the host may use it");
    }
}

impl Drop for Names {
    /// The bed takes down what it has made; this is not of it.
    fn drop(&mut self) {
        for (host, subsystem) in &self.0 {
            let folder = in_subsystems(subsystem);
            let _ = std::fs::remove_file(folder.join("allowed_hosts").join(host));
            let _ =
                std::fs::remove_file(Path::new(NVMET).join("ports/1/subsystems").join(subsystem));
        }
        for (host, subsystem) in &self.0 {
            let _ = std::fs::remove_dir(in_subsystems(subsystem));
            let _ = std::fs::remove_dir(Path::new(NVMET).join("hosts").join(host));
        }
    }
}

fn in_subsystems(name: &str) -> PathBuf {
    Path::new(NVMET).join("subsystems").join(name)
}

impl Case {
    /// Tells if it is part of a selection: where the kernel's response is known, all oddities of
    /// the smallest group, and some of the rest.
    fn is_chosen(&self) -> bool {
        let known = self.group == 0 && self.controller.is_some();
        let odd = self.note != "one-way" && self.note != "two-way";
        known || (odd && self.group == 1) || self.number.is_multiple_of(23)
    }

    fn run(&self, exchange: Option<&KeyExchange>) -> Value {
        let controller = self.controller.as_ref();
        let inputs = Inputs {
            note: format!("{}: case {}, {}", kernel(), self.number, self.note),
            host_nqn: &self.host_nqn,
            subsystem_nqn: &self.subsystem_nqn,
            host_secret: &self.host_secret,
            controller_secret: controller.map(|controller| &*controller.secret),
            transaction_id: self.transaction_id,
            s2: controller.map_or(NonZeroU32::MIN, |controller| controller.s2),
            challenge_random: padded(controller.map_or("", |controller| &controller.c2), 64),
            exponent_random: padded(exchange.map_or("", |exchange| &exchange.host_random), 52),
        };
        inputs.run()
    }

    /// Checks what the file says of it; returns whether that is all of the kernel's response.
    fn check(&self, exchange: Option<&KeyExchange>, row: &Value) -> bool {
        let how = &row["outcome"]["authenticated"];
        let expected = (self.hash, self.group, self.controller.is_some());
        let number = |name: &str| how[name].as_u64().and_then(|id| u8::try_from(id).ok());
        assert_eq!(
            (number("hash"), number("group"), how["controller_proved"].as_bool()),
            (Some(expected.0), Some(expected.1), Some(expected.2)),
            "{row}"
        );
        let message = |index: usize| bytes(row["messages"][index].as_str().expect("bytes"));
        let (reply, success1) = (message(2), message(3));
        let public = &reply[16 + 2 * usize::from(reply[6])..];
        let expected = exchange.map_or("", |exchange| &exchange.host_public);
        assert_eq!(hexadecimal(public), expected, "{row}");
        match &self.controller {
            Some(controller) if self.group == 0 => {
                assert_eq!(hexadecimal(&success1[16..]), controller.response, "{row}");
                true
            }
            _ => false,
        }
    }
}

/// All 525 with `VECTORS=all`.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_kernel_agrees_with_the_vectors() {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../../auth/vectors/vectors.json")).expect("JSON");
    let all = std::env::var("VECTORS").is_ok_and(|value| value == "all");
    let (began, mut names) = (Instant::now(), Names(HashSet::new()));
    let (mut rows, mut known) = (Vec::new(), 0);
    for case in vectors.cases.iter().filter(|case| all || case.is_chosen()) {
        let exchange = case.key_exchange.as_ref().map(|name| {
            let mut exchanges = vectors.key_exchanges.iter();
            let found = exchanges.find(|one| one.group == case.group && one.name == *name);
            found.expect("every key exchange named is there")
        });
        names.offer(&case.host_nqn, &case.subsystem_nqn);
        let set = |attribute, value| set_host(&case.host_nqn, attribute, value);
        let hash = ["sha256", "sha384", "sha512"][usize::from(case.hash) - 1];
        let groups = ["null", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"];
        set("dhchap_hash", hash);
        set("dhchap_dhgroup", groups[usize::from(case.group)]);
        set("dhchap_key", &case.host_secret);
        if let Some(controller) = &case.controller {
            set("dhchap_ctrl_key", &controller.secret);
        }
        let row = case.run(exchange);
        known += usize::from(case.check(exchange, &row));
        rows.push(row);
    }
    drop(names);
    println!(
        "{} of {} cases, of {known} the kernel's response as it stands there, in {:.1} s",
        rows.len(),
        vectors.cases.len(),
        began.elapsed().as_secs_f64()
    );
    assert_eq!((rows.len(), known), (if all { 525 } else { 90 }, 60));
    check_in_python(&rows);
}
