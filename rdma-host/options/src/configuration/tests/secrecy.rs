//! Secrets in any place of a configuration: no message shows them, and nothing panics.

use super::{
    super::*,
    damage::{KINDS, Random, places, positions, repetitions, shown_piece},
};

/// Configurations of each format with the keys that there are, and `SECRET` where secrets belong.
const TEXTS: [&str; 3] = [
    "[Discovery Controller Defaults]\nkeep-alive-tmo = 30 # seconds\n[Host]\nhostnqn = nqn.host:1\n\
     hostid = 46ba5037-7ce5-41fa-9452-48477bf00080\nhostsymname = lab #1\nkxchap-secret = SECRET\n\
     [Subsystem]\nnqn = nqn.disk:1\ntls-key-identity = id\nkeyring = .nvme\nkxchap-ctrl-secret = \
     SECRET\ncontroller = transport=rdma;traddr=10.0.0.1;trsvcid=4420;host-traddr=10.0.0.9;tos=1\n\
     [Discovery Controller]\npersistent = auto\ncontroller = transport=rdma;traddr=10.0.0.2\n",
    "{ \"hosts\": [\n{ \"hostnqn\": \"nqn.host:1\", \"hostid\": \
     \"46ba5037-7ce5-41fa-9452-48477bf00080\", \"dhchap_key\": \"SECRET\", \"subsystems\": [\n\
     { \"nqn\": \"nqn.disk:1\", \"ports\": [ { \"transport\": \"rdma\", \"traddr\": \"10.0.0.1\",\n\
     \"trsvcid\": \"4420\", \"queue_size\": 64, \"discovery\": false, \"keyring\": \".nvme\",\n\
     \"dhchap_ctrl_key\": \"SECRET\" } ] } ] } ] }\n",
    "# comment\n-t rdma -a 10.0.0.1 -s 4420 -S SECRET -C SECRET --keyring=.nvme -q nqn.host:1 -p\n\
     --transport=rdma --traddr=10.0.0.2 --tos 1 --dhchap-secret=SECRET --hostid \
     46ba5037-7ce5-41fa-9452-48477bf00080 --persistent=force -w 10.0.0.9\n",
];

/// Messages about a text, of each of the parsers and of all that follows.
fn printed(text: &str) -> String {
    let mut printed = String::new();
    let parsers: [Parser; 3] = [
        |path, text, configuration| {
            let document = ini::parse(path, text, &mut configuration.warnings)?;
            configuration.files.push(document);
            Ok(())
        },
        json::parse,
        options::parse,
    ];
    for parse in parsers {
        let mut configuration = Configuration::default();
        let mut say = |text: &dyn std::fmt::Display| printed.push_str(&format!("{text}\n"));
        if let Err(error) = parse(Path::new("file"), text, &mut configuration) {
            say(&error);
        }
        configuration.warnings.iter().for_each(|warning| say(warning));
        match configuration.connections() {
            Ok(connections) => {
                say(&format!("{connections:?}"));
                for connection in connections {
                    // Names are not looked up here.
                    if connection.address.traddr.parse::<std::net::IpAddr>().is_ok()
                        && let Err(failure) = connection.options(&GivenOptions::default())
                    {
                        say(&failure);
                    }
                }
            }
            Err(failure) => say(&failure),
        }
        if let Err(failure) = configuration.outputs(Path::new("out.conf")) {
            say(&failure);
        }
    }
    printed
}

/// True within an NQN: a part of a secret with fewer than 32 characters in a row may be a part of a
/// name there.
fn is_in_name(text: &str, at: usize) -> bool {
    let word = text[..at].rsplit(|c: char| c.is_whitespace() || "\"'=;".contains(c)).next();
    word.is_some_and(|word| word.starts_with("nqn."))
}

/// True for text with at least this number of characters of Base64 in a row.
fn has_run(secret: &str, least: usize) -> bool {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    secret.split(|c| !is_base64(c)).any(|run| run.len() >= least)
}

/// In the place of each word, or before it; by `tests/longer` also between any two characters.
#[test]
fn no_damage_of_a_secret_shows_it_in_any_place() {
    for round in 0..repetitions(1) {
        let mut random = Random(round as u64 + 1);
        for text in TEXTS {
            let between = positions(text).filter(|_| repetitions(1) > 1);
            for place in places(text).into_iter().chain(between) {
                let secret = random.secret();
                for kind in 0..KINDS {
                    let damaged = random.damage(&secret, kind);
                    let end = if random.below(3) == 0 { place.start } else { place.end };
                    let file = format!("{}{damaged}{}", &text[..place.start], &text[end..]);
                    if is_in_name(text, place.start) && !has_run(&damaged, 32) {
                        continue;
                    }
                    let printed = printed(&file);
                    let piece = shown_piece(&damaged, &printed);
                    assert_eq!(piece, None, "damage {kind} of\n{file}\nprints\n{printed}");
                }
            }
        }
    }
}

#[test]
fn no_mutated_configuration_panics_or_shows_its_secret() {
    let mut random = Random(13);
    for number in 0..repetitions(10_000) {
        let secret = random.secret();
        let text = TEXTS[number % TEXTS.len()].replace("SECRET", &secret);
        let changes = 1 + random.below(12);
        let file = random.mutate(&text, changes);
        let printed = printed(&file);
        let piece = shown_piece(&secret, &printed);
        assert_eq!(piece, None, "number {number}:\n{file}\nprints\n{printed}");
    }
}
