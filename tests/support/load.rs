//! Reads that go on until the connection is lost.

use std::time::Duration;

use rdma_host::{
    ConnectOptions, Controller, Error, ErrorClass, ReconnectOptions, TransferError,
    wire::NamespaceId,
};
use tokio::task::JoinHandle;
use verbs::Buffer;

/// Nothing in the bed takes as long; who waits longer hangs.
pub const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// Many readers of one controller.
pub struct Load {
    controller: Controller,
    readers: Vec<JoinHandle<TransferError>>,
}

/// Options of the bed's target, with two queues, little patience, and no second connection.
///
/// # Panics
///
/// Outside the bed.
#[must_use]
pub fn quick_options() -> ConnectOptions {
    let mut options = crate::options();
    options.io_queues = 2;
    options.keep_alive = Duration::from_secs(2);
    options.io_timeout = Duration::from_secs(3);
    options.reconnect = ReconnectOptions::never();
    options
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load").field("readers", &self.readers.len()).finish_non_exhaustive()
    }
}

impl Load {
    /// Connects, and reads for a while.
    ///
    /// # Errors
    ///
    /// When it can't connect.
    pub async fn start(options: &ConnectOptions) -> Result<Self, Error> {
        let controller = Controller::connect(options).await?;
        let namespace = controller.namespace(NamespaceId(1)).await?;
        let mut readers = Vec::new();
        for lba in 0..64 {
            let namespace = namespace.clone();
            let mut buffer: Buffer = controller.allocate(4096)?;
            readers.push(tokio::spawn(async move {
                loop {
                    buffer = match namespace.read(lba, buffer).await {
                        Ok(buffer) => buffer,
                        Err(failed) => return failed,
                    };
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Self { controller, readers })
    }

    /// Waits until all have failed, each with its buffer, and says what ended the controller.
    ///
    /// # Panics
    ///
    /// When one does not, or not by the transport.
    pub async fn failure(self) -> Error {
        let Self { controller, readers } = self;
        let ended = async {
            for reader in readers {
                let failed = reader.await.expect("no reader panics");
                assert_eq!(failed.error.class(), ErrorClass::Transport, "{failed}");
                assert!(failed.buffer.is_some(), "the buffer comes back");
            }
            let cause = controller.failed().await;
            controller.shutdown().await;
            cause
        };
        tokio::time::timeout(HANG_TIMEOUT, ended).await.expect("every request ends")
    }

    /// Tells if no reader has ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.readers.iter().any(JoinHandle::is_finished)
    }

    /// Ends the controller, if it has not ended; each reader fails, with its buffer.
    ///
    /// # Panics
    ///
    /// When one does not.
    pub async fn stop(self) {
        let Self { controller, readers } = self;
        let ended = async {
            controller.shutdown().await;
            for reader in readers {
                let failed = reader.await.expect("no reader panics");
                assert!(failed.buffer.is_some(), "the buffer comes back");
            }
        };
        tokio::time::timeout(HANG_TIMEOUT, ended).await.expect("every request ends");
    }
}
