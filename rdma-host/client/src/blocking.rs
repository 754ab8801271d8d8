//! Blocking reads and writes, for programs without a runtime of tokio's.
//!
//! A [`Client`] has a runtime with one thread of its own. Its functions must not be called within
//! another runtime, whose thread they would block.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::io::SyncIoBridge;

use crate::{ByteCounters, ByteOptions, NamespaceCursor};

/// Connected subsystem. Dropping it shuts it down in the background.
pub struct Client {
    runtime: BackgroundRuntime,
    client: Option<crate::Client>,
}

/// Namespace whose bytes are read and written at any offset. Cheap to clone.
#[derive(Clone)]
pub struct ByteNamespace {
    runtime: Handle,
    namespace: crate::ByteNamespace,
}

/// Position in a namespace: it is [`Read`](io::Read), [`Write`](io::Write) and [`Seek`](io::Seek).
pub type Cursor = SyncIoBridge<NamespaceCursor>;

/// Runtime that goes on alone when it is dropped, with what is left to do.
struct BackgroundRuntime(Option<Runtime>);

impl BackgroundRuntime {
    fn new() -> io::Result<Self> {
        if Handle::try_current().is_ok() {
            let message = "blocking functions are called within a runtime of tokio's, which they \
                           would block; use those of nvmf_client::Client there";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Builder::new_multi_thread().worker_threads(1).enable_all().build().map(Some).map(Self)
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("taken only at the end")
    }
}

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// Connects a target, as [`Client::open`](crate::Client::open).
    ///
    /// # Errors
    ///
    /// As there, and [`InvalidInput`](io::ErrorKind::InvalidInput) within a runtime of tokio's.
    pub fn open(target: &str) -> io::Result<Self> {
        Self::open_with(target, &[])
    }

    /// Connects a target with options, as [`Client::open_with`](crate::Client::open_with).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(target: &str, options: &[(&str, &str)]) -> io::Result<Self> {
        let runtime = BackgroundRuntime::new()?;
        let client = runtime.get().block_on(crate::Client::open_with(target, options))?;
        Ok(Self { runtime, client: Some(client) })
    }

    /// Opens a namespace, with the default buffers.
    ///
    /// # Errors
    ///
    /// As [`Subsystem::namespace`](rdma_host::Subsystem::namespace).
    pub fn namespace(&self, id: u32) -> io::Result<ByteNamespace> {
        self.namespace_with(id, ByteOptions::default())
    }

    /// Opens a namespace with buffers of its own.
    ///
    /// # Errors
    ///
    /// As [`namespace`](Self::namespace).
    pub fn namespace_with(&self, id: u32, options: ByteOptions) -> io::Result<ByteNamespace> {
        let (runtime, client) = (self.runtime.get(), self.client.as_ref());
        let opening = client.expect("taken only at the end").namespace_with(id, options);
        let namespace = runtime.block_on(opening).map_err(crate::error::command_error)?;
        Ok(ByteNamespace { runtime: runtime.handle().clone(), namespace })
    }

    /// Shuts all controllers down, and waits for that.
    pub fn shutdown(mut self) {
        if let Some(client) = self.client.take() {
            self.runtime.get().block_on(client.shutdown());
        }
    }
}

impl ByteNamespace {
    /// Size in bytes, as last identified.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.namespace.size()
    }

    /// Counters since the namespace was opened.
    #[must_use]
    pub fn counters(&self) -> ByteCounters {
        self.namespace.counters()
    }

    /// Position in the namespace, at byte 0.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        SyncIoBridge::new_with_handle(self.namespace.cursor(), self.runtime.clone())
    }

    /// Reads, as [`read_exact_at`](crate::ByteNamespace::read_exact_at).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.runtime.block_on(self.namespace.read_exact_at(out, offset))
    }

    /// Writes, as [`write_all_at`](crate::ByteNamespace::write_all_at).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.runtime.block_on(self.namespace.write_all_at(data, offset))
    }

    /// Flushes completed writes to non-volatile media (Flush).
    ///
    /// # Errors
    ///
    /// As [`flush`](crate::ByteNamespace::flush).
    pub fn flush(&self) -> io::Result<()> {
        self.runtime.block_on(self.namespace.flush())
    }
}
