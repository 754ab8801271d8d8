//! DH-HMAC-CHAP against the kernel's target: every secret, hash and group, one-way and two-way,
//! and what happens when a key is wrong, missing or changed.

use std::sync::Arc;
use std::time::Duration;

use auth::{Credentials, GroupId, HashId, Secret};
use rdma_host::error::AuthenticationFailure;
use rdma_host::proto::State;
use rdma_host::wire::NamespaceId;
use rdma_host::{Class, ConnectOptions, Controller, Error, ReconnectOptions};
use tests::{SUBSYSTEM, options, target};

/// The host that the target file names.
const HOST: &str = "nqn.2026-11.org.soft-roce:secret";

const GROUPS: [(&str, GroupId); 6] = [
    ("null", GroupId::NULL),
    ("ffdhe2048", GroupId::FFDHE_2048),
    ("ffdhe3072", GroupId::FFDHE_3072),
    ("ffdhe4096", GroupId::FFDHE_4096),
    ("ffdhe6144", GroupId::FFDHE_6144),
    ("ffdhe8192", GroupId::FFDHE_8192),
];

const HASHES: [(&str, HashId); 3] =
    [("sha256", HashId::SHA_256), ("sha384", HashId::SHA_384), ("sha512", HashId::SHA_512)];

/// A secret in its text form, which differs with `seed`.
fn secret_text(transformation: HashId, length: usize, seed: u64) -> String {
    let secret = Secret::from_bytes(transformation, &tests::noise(length, seed));
    secret.ok().expect("a valid length").encode().as_str().to_owned()
}

fn set_host(attribute: &str, value: &str) {
    target(&["set", "host", HOST, attribute, value]);
}

fn credentials(host: &str, controller: Option<&str>) -> Arc<Credentials> {
    let parse = |text| Secret::parse(text).expect("a valid secret");
    Arc::new(match controller {
        None => Credentials::one_way(parse(host)),
        Some(controller) => {
            Credentials::two_way(parse(host), parse(controller)).expect("two secrets")
        }
    })
}

/// Options of the host that must authenticate; two I/O queues.
fn secret_options(credentials: Option<Arc<Credentials>>) -> ConnectOptions {
    let mut options = options();
    options.host.nqn = HOST.parse().expect("an NQN");
    options.io_queues = 2;
    options.authentication.credentials = credentials;
    options.reconnect.delay = Duration::from_millis(500);
    options
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(test)
}

/// The target's keys, whatever a test left there.
struct Keys {
    host: String,
    controller: Option<String>,
}

impl Keys {
    fn set(host: String, controller: Option<String>) -> Self {
        set_host("dhchap_key", &host);
        // An empty key is refused by 6.12: what one-way exchanges do not use may stay.
        if let Some(controller) = &controller {
            set_host("dhchap_ctrl_key", controller);
        }
        Self { host, controller }
    }

    fn credentials(&self) -> Arc<Credentials> {
        credentials(&self.host, self.controller.as_deref())
    }
}

/// Connects and does I/O on every queue; returns how the queues were authenticated.
async fn connect_and_read(options: &ConnectOptions) -> Vec<Option<auth::Authenticated>> {
    let controller = Controller::connect(options).await.unwrap_or_else(|error| panic!("{error}"));
    let namespace = controller.namespace(NamespaceId(1)).await.expect("it is there");
    let mut buffer = controller.allocate(4096).expect("memory");
    for lba in 0..4 {
        buffer = namespace.write(lba, buffer).await.expect("an authenticated queue takes I/O");
        buffer = namespace.read(lba, buffer).await.expect("an authenticated queue takes I/O");
    }
    let authenticated = controller.negotiated().authenticated.clone();
    controller.shutdown().await;
    authenticated
}

/// 4 transformations × 3 lengths × 3 hashes × 6 groups × one-way and two-way.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn all_432_handshakes_succeed() {
    let mut handshakes = 0;
    for (group_name, group) in GROUPS {
        set_host("dhchap_dhgroup", group_name);
        for (hash_name, hash) in HASHES {
            set_host("dhchap_hash", hash_name);
            for transformation in [0, 1, 2, 3].map(HashId) {
                for length in [32, 48, 64] {
                    for two_way in [false, true] {
                        let seed = handshakes + 1;
                        let controller =
                            two_way.then(|| secret_text(transformation, length, seed << 32));
                        let keys = Keys::set(secret_text(transformation, length, seed), controller);
                        let options = secret_options(Some(keys.credentials()));
                        let how = in_runtime(connect_and_read(&options));
                        let expected =
                            auth::Authenticated { hash, group, controller_proved: two_way };
                        assert_eq!(how, [Some(expected); 3], "{hash_name} {group_name} {length}");
                        handshakes += 1;
                    }
                }
            }
        }
    }
    assert_eq!(handshakes, 432);
}

/// Connects with these options, which must fail; returns the error.
fn refused(options: &ConnectOptions) -> Error {
    in_runtime(Controller::connect(options)).err().expect("the target refuses")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn keys_that_are_wrong_or_missing_are_terminal() {
    set_host("dhchap_dhgroup", "ffdhe2048");
    set_host("dhchap_hash", "sha256");
    let keys = Keys::set(secret_text(HashId(1), 32, 1), Some(secret_text(HashId(1), 32, 2)));
    let other = secret_text(HashId(1), 32, 3);
    for (name, credentials, words) in [
        ("no key", None, "secret"),
        ("another host key", Some(credentials(&other, None)), "refused"),
        (
            "another controller key",
            Some(credentials(&keys.host, Some(&other))),
            "another controller secret",
        ),
    ] {
        let error = refused(&secret_options(credentials));
        assert_eq!(error.class(), Class::Access, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
        assert!(matches!(error, Error::Authentication { .. }), "{name}: {error}");
    }
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_key_changed_at_the_target_ends_the_retries() {
    let keys = Keys::set(secret_text(HashId(0), 32, 1), None);
    in_runtime(async {
        let options = secret_options(Some(keys.credentials()));
        let controller = Controller::connect(&options).await.expect("the key is right");
        let mut changes = controller.changes();
        tokio::task::spawn_blocking(|| {
            Keys::set(secret_text(HashId(0), 32, 2), None);
            target(&["fatal", SUBSYSTEM]);
        })
        .await
        .expect("the key changes");
        let error = controller.failed().await;
        assert_eq!(error.class(), Class::Access, "{error}");
        assert!(error.to_string().contains("1 attempt"), "{error}");
        let mut last = None;
        while let Some(change) = changes.next().await {
            last = Some(change.state);
        }
        assert_eq!(last, Some(State::Dead));
    });
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_target_that_stops_asking_is_refused_unless_allowed() {
    let keys = Keys::set(secret_text(HashId(0), 32, 1), None);
    // For nvmet a subsystem that any host may use needs no authentication.
    target(&["disallow", SUBSYSTEM, HOST]);
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "1"]);
    let mut options = secret_options(Some(keys.credentials()));
    let error = refused(&options);
    assert!(
        matches!(&error, Error::Authentication { failure: AuthenticationFailure::Start(_), .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Access, "{error}");
    options.authentication.policy = options.authentication.policy.danger_allow_unasked();
    let how = in_runtime(connect_and_read(&options));
    assert_eq!(how, [None; 3]);
    target(&["set", "subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, HOST]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn floors_are_kept() {
    set_host("dhchap_dhgroup", "ffdhe2048");
    set_host("dhchap_hash", "sha256");
    let keys = Keys::set(secret_text(HashId(0), 32, 1), None);
    for (hash, group) in [
        (HashId::SHA_384, GroupId::NULL),
        (HashId::SHA_256, GroupId::FFDHE_3072),
        (HashId::SHA_512, GroupId::FFDHE_8192),
    ] {
        let mut options = secret_options(Some(keys.credentials()));
        options.authentication.policy = auth::Policy::new(hash, group).expect("known ids");
        options.reconnect = ReconnectOptions::never();
        let error = refused(&options);
        println!("{hash}, {group}: {error}");
        assert!(matches!(error, Error::Authentication { .. }), "{error}");
    }
}
