//! Endpoints that must not say goodbye yet.
//!
//! Ending a connection, or dropping its endpoint, sends a message of the connection manager. On rxe
//! one that is sent while the port is down is the last: its special queue pair fails with it, and
//! nothing connects over that device any more. So what ends then is kept until the port is active,
//! and let go on the next occasion; the peer has noticed by other means long before.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

use crate::driver::port_watch::PortWatch;

/// An endpoint, of any provider, that is let go of only when its port allows.
pub(crate) struct DeferredClose<E: Send + 'static> {
    /// There until it is taken or dropped.
    endpoint: Option<E>,
    port: PortWatch,
}

impl<E: Send + 'static> DeferredClose<E> {
    /// An endpoint whose device is not known yet: it has nobody to talk to.
    pub(crate) fn new(endpoint: E) -> Self {
        Self { endpoint: Some(endpoint), port: PortWatch::default() }
    }

    /// Takes the endpoint away, to be used and let go elsewhere under the same condition.
    pub(crate) fn take(&mut self) -> Self {
        Self { endpoint: self.endpoint.take(), port: std::mem::take(&mut self.port) }
    }

    /// The device is known.
    pub(crate) fn talks_through(&mut self, port: PortWatch) {
        self.port = port;
    }

    /// Whether a message sent now could be the last.
    pub(crate) fn must_be_silent(&self) -> bool {
        self.port.is_down()
    }
}

impl<E: Send + 'static> Deref for DeferredClose<E> {
    type Target = E;

    fn deref(&self) -> &E {
        self.endpoint.as_ref().expect("it is there until it is taken or dropped")
    }
}

impl<E: Send + 'static> DerefMut for DeferredClose<E> {
    fn deref_mut(&mut self) -> &mut E {
        self.endpoint.as_mut().expect("it is there until it is taken or dropped")
    }
}

impl<E: Send + 'static> Drop for DeferredClose<E> {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take()
            && self.port.is_down()
        {
            let port = std::mem::take(&mut self.port);
            LIMBO.lock().push(Kept { port, _endpoint: Box::new(endpoint) });
        }
    }
}

/// An endpoint that waits for its port.
struct Kept {
    port: PortWatch,
    _endpoint: Box<dyn Send>,
}

static LIMBO: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// Lets go of those whose port is active again.
pub(crate) fn release() {
    let mut limbo = LIMBO.lock();
    let all = std::mem::take(&mut *limbo).into_iter();
    let (down, active): (Vec<_>, Vec<_>) = all.partition(|kept| kept.port.is_down());
    *limbo = down;
    drop(limbo);
    drop(active); // which talks to the kernel
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn an_endpoint_waits_for_its_port() {
        let device = std::env::temp_dir().join(format!("nvmf-limbo-{}", std::process::id()));
        let state = device.join("ports/1/state");
        fs::create_dir_all(state.parent().unwrap()).unwrap();
        let endpoint = Arc::new(());
        fs::write(&state, "1: DOWN\n").unwrap();
        let part = || {
            let mut parting = DeferredClose::new(Arc::clone(&endpoint));
            parting.talks_through(PortWatch::of_folder(&device));
        };
        part();
        release();
        assert_eq!(Arc::strong_count(&endpoint), 2, "its port is down");
        fs::write(&state, "4: ACTIVE\n").unwrap();
        release();
        assert_eq!(Arc::strong_count(&endpoint), 1);
        part();
        assert_eq!(Arc::strong_count(&endpoint), 1, "nothing is in its way");
        fs::remove_dir_all(&device).unwrap();
    }
}
