//! Wrong keys under every hash and group, as SPDK's host/auth.sh has them; and what the log says
//! of right ones and wrong ones.

use auth::HashId;
use rdma_host::{Controller, Error, ErrorClass};
use tests::{SUBSYSTEM, noise, nvmf, run, uri};

use super::bed::{
    GROUPS, HASHES, HOST, Keys, choose, connect_and_read, credentials, in_runtime, plain,
    secret_file, secret_options, secret_text,
};

/// Fault of the keys of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// Our key is another one, and the controller need not prove itself.
    Host,
    /// Our key is another one, and the controller must prove itself.
    HostOfTwo,
    /// We expect another key of the controller.
    Controller,
}

/// Connects with these keys, which must fail as it should; returns the message.
fn refused(keys: &Keys, wrong: Wrong, seed: u64) -> String {
    let other = secret_text(HashId(u8::try_from(seed % 4).expect("below 4")), 48, seed + 500);
    let theirs = keys.controller.as_deref();
    let credentials = match wrong {
        Wrong::Host => credentials(&other, None),
        Wrong::HostOfTwo => credentials(&other, theirs),
        Wrong::Controller => credentials(&keys.host, Some(&other)),
    };
    let outcome = in_runtime(Controller::connect(&secret_options(Some(credentials))).into_future());
    let error = outcome.err().unwrap_or_else(|| panic!("{wrong:?}: the target refuses"));
    assert_eq!(error.class(), ErrorClass::Access, "{wrong:?}: {error}");
    assert!(
        matches!(&error, Error::Authentication { queue, .. } if queue.is_admin()),
        "{wrong:?}: {error:?}"
    );
    // Which of both sides found out: the message says whose secret to look at.
    let expected = match wrong {
        Wrong::Host | Wrong::HostOfTwo => "at both ends",
        Wrong::Controller => "the target has another controller secret than this host",
    };
    let message = error.to_string();
    assert!(message.contains(expected) && !message.contains('\n'), "{wrong:?}: {message}");
    message
}

/// All 54 with `AUTH_MATRIX=all`; otherwise each hash, group and fault is among those tried. The
/// right keys get in after each.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn wrong_keys_are_refused_under_every_hash_and_group() {
    let all = std::env::var("AUTH_MATRIX").is_ok_and(|value| value == "all");
    let (mut count, mut said) = (0, 0);
    for index in 0..18 {
        let (group, hash) = (index / 3, index % 3);
        let faults = [Wrong::Host, Wrong::HostOfTwo, Wrong::Controller];
        let is_chosen = |fault: Wrong| all || (hash == group % 3 && fault == faults[group / 2]);
        let faults: Vec<_> = faults.into_iter().filter(|&fault| is_chosen(fault)).collect();
        if faults.is_empty() {
            continue;
        }
        choose(HASHES[hash].0, GROUPS[group].0);
        let seed = 100 + 10 * index as u64;
        let theirs = secret_text(HashId(2), 64, seed + 1);
        let keys = Keys::new(secret_text(HashId(1), 32, seed), Some(theirs));
        keys.set();
        for &fault in &faults {
            let message = refused(&keys, fault, seed);
            said += usize::from(message.contains("the target refused: authentication failed"));
            count += 1;
        }
        in_runtime(connect_and_read(&keys.options()));
    }
    println!("{count} refusals; {said} in the target's own words, the rest by hanging up or by us");
    assert_eq!(count, if all { 54 } else { 6 });
}

/// The forms in which the secret that [`plain`] makes of this seed might be written.
fn forms(seed: u64) -> Vec<Vec<u8>> {
    let bytes = noise(32, seed);
    let hexadecimal: String = bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let numbers = format!("{:?}", &bytes[..6]);
    let base64 = plain(seed)["DHHC-1:00:".len()..][..16].to_owned();
    let texts = [hexadecimal.to_uppercase(), hexadecimal, numbers[1..].to_owned(), base64];
    let mut forms: Vec<_> = texts.into_iter().map(String::into_bytes).collect();
    // The list of numbers without its end, which others may follow.
    forms[2].pop();
    forms.push(bytes[..16].to_vec());
    forms
}

/// Everything is logged, and of a secret nothing, whether the keys are right or wrong.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_log_says_nothing_of_secrets() {
    choose("sha256", "ffdhe2048");
    Keys::new(plain(1), Some(plain(2))).set();
    let folder = tempfile::tempdir().expect("a folder");
    for (seeds, code) in [([1, 2], 0), ([3, 2], 3), ([1, 3], 3)] {
        let [ours, theirs] =
            seeds.map(|seed| secret_file(folder.path(), &seed.to_string(), &plain(seed)));
        let mut command = nvmf();
        command.args(["identify", &uri(SUBSYSTEM), "-q", HOST, "-vv"]).env("RUST_LOG", "trace");
        command.args(["--dhchap-secret-file", &ours, "--dhchap-ctrl-secret-file", &theirs]);
        let output = run(&mut command, &[]);
        let said = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("DEBUG") || text.contains("TRACE"), "there is a log: {text}");
        for form in seeds.into_iter().flat_map(forms) {
            let found = said.windows(form.len()).any(|window| window == form);
            assert!(!found, "{}: {text}", String::from_utf8_lossy(&form));
        }
    }
}
