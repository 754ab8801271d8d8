//! Targets that are silent, or slow, while a queue is authenticated.

use std::time::Duration;

use auth::{GroupId, HashId};
use rdma_host::{Controller, Error, ErrorClass, config::AUTHENTICATION_TIMEOUT};
use tests::{
    authentication_hook::AuthenticationHook,
    target::{Answer, ReceivedCommand},
};

use crate::{STEPS, assert_patient, at_step, bed, options, run, settings};

/// Time does not pass by itself here: it jumps to whatever is waited for.
#[test]
fn silence_has_a_deadline_at_every_step() {
    for queue in [0, 2] {
        for step in 0..STEPS {
            let (silent, fell) = tokio::sync::oneshot::channel();
            let mut silent = Some(silent);
            let silence = move |_: ReceivedCommand, answer: &mut Answer| {
                answer.data.clear();
                answer.messages.clear();
                if let Some(silent) = silent.take() {
                    let _ = silent.send(());
                }
            };
            let error = out_of_time(fell, at_step(queue, step, silence));
            assert!(
                matches!(
                    error,
                    Error::Timeout { step: "Authentication Send", .. }
                        | Error::Timeout { step: "Authentication Receive", .. }
                ),
                "{error:?}"
            );
            assert_eq!(error.class(), ErrorClass::Transport);
        }
    }
}

/// Each answer just within the limit of its command: the whole exchange has one, too.
#[test]
fn a_target_that_drips_is_given_up() {
    for queue in [0, 2] {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let mut begun = Some(begun);
        let drip = move |seen: ReceivedCommand, answer: &mut Answer| {
            if seen.queue == queue && (seen.is_fabrics(0x05) || seen.is_fabrics(0x06)) {
                answer.delay = Duration::from_millis(9_500);
                if let Some(begun) = begun.take() {
                    let _ = begun.send(());
                }
            }
        };
        let error = out_of_time(begins, drip);
        assert!(
            matches!(error, Error::Timeout { step: "authentication", after }
                if after == AUTHENTICATION_TIMEOUT),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Transport);
    }
}

/// Connects two-way, which must fail; time is stopped once `begins` says so.
fn out_of_time(
    begins: tokio::sync::oneshot::Receiver<()>,
    mut hook: impl FnMut(ReceivedCommand, &mut Answer) + Send + 'static,
) -> Error {
    let authentication = AuthenticationHook::new(|_| settings(HashId::SHA_256, GroupId::NULL));
    let inner = authentication.clone();
    let error = run(async {
        let host = bed(move |seen, answer| {
            inner.answer(seen, answer);
            hook(seen, answer);
        });
        let options = options(true);
        let connecting = Controller::connect_over(&host, &options);
        let stop = async {
            begins.await.expect("the step is reached");
            tokio::time::pause();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = connecting => outcome.err().expect("the connect fails"),
            () = stop => unreachable!("it waits for ever"),
        }
    });
    assert_patient("silence", &authentication.report());
    error
}
