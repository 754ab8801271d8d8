//! DH-HMAC-CHAP against the kernel's target: every secret, hash and group, one-way and two-way,
//! what happens when a key is wrong, missing or changed, and authenticating again.

mod authentication {
    pub(crate) mod bed;
    mod matrix;
}

use auth::{GroupId, HashId};
use rdma_host::error::AuthenticationFailure;
use rdma_host::proto::State;
use rdma_host::{Class, ConnectOptions, Controller, Error, ReconnectOptions};
use tests::{SUBSYSTEM, target};

use authentication::bed::{
    HOST, Keys, choose, connect_and_read, credentials, in_runtime, plain, secret_options,
    secret_text, set,
};

/// Connects with these options, which must fail; returns the error.
fn refused(options: &ConnectOptions) -> Error {
    in_runtime(Controller::connect(options)).err().expect("the target refuses")
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn keys_that_are_wrong_or_missing_are_terminal() {
    choose("sha256", "ffdhe2048");
    let keys = Keys::new(secret_text(HashId(1), 32, 1), Some(secret_text(HashId(1), 32, 2)));
    keys.set();
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
    let keys = Keys::new(plain(1), None);
    keys.set();
    in_runtime(async {
        let options = secret_options(Some(keys.credentials()));
        let controller = Controller::connect(&options).await.expect("the key is right");
        let mut changes = controller.changes();
        tokio::task::spawn_blocking(|| {
            Keys::new(plain(2), None).set();
            target(&["fatal", SUBSYSTEM]);
        })
        .await
        .expect("the key changes");
        while let Some(change) = changes.next().await {
            eprintln!("DEBUG {change}");
        }
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
    let keys = Keys::new(plain(1), None);
    keys.set();
    // For nvmet a subsystem that any host may use needs no authentication.
    target(&["disallow", SUBSYSTEM, HOST]);
    set(&["subsystem", SUBSYSTEM, "allow_any_host", "1"]);
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
    set(&["subsystem", SUBSYSTEM, "allow_any_host", "0"]);
    target(&["allow", SUBSYSTEM, HOST]);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn floors_are_kept() {
    choose("sha256", "ffdhe2048");
    let keys = Keys::new(plain(1), None);
    keys.set();
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
