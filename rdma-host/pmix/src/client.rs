//! Connection of this process to its launcher.

use std::{
    ffi::{CString, c_int},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    call::Call,
    error::Error,
    layout::{self, JOB_SIZE, Process, RANK_WILDCARD},
    sys::Functions,
};

/// Time that the launcher has to take leave of this process.
const FINALIZE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connection to the launcher, which ends when it is dropped. A launcher may end the whole job if a
/// process ends without that.
pub struct Client {
    functions: Arc<Functions>,
    process: Process,
    size: u32,
}

/// Passage of a fence, by this process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Fence {
    /// Time at which this process arrived.
    pub arrived: Instant,
    /// Time at which it left. No process leaves before the last one has arrived, so that all leave
    /// within the longest of the times that a process spent in the fence.
    pub left: Instant,
}

/// True if a launcher that speaks PMIx has started this process.
#[must_use]
pub fn is_launched() -> bool {
    std::env::var_os("PMIX_RANK").is_some()
}

impl Client {
    /// Opens the library and connects to the launcher.
    ///
    /// # Errors
    ///
    /// [`Error::Library`] if the library is not installed, another if no launcher answers in time.
    pub fn connect(limit: Duration) -> Result<Self, Error> {
        let connect = move || {
            let functions = Arc::new(Functions::open()?);
            let process = functions.init()?;
            let all = process.with_rank(RANK_WILDCARD);
            let size = functions.get_u32(&all, &layout::key(JOB_SIZE)?, seconds(limit));
            match size {
                Ok(size) => Ok(Self { functions, process, size }),
                Err(error) => {
                    // The first error is the one to report.
                    let _ = functions.finalize();
                    Err(error)
                }
            }
        };
        Call::start("PMIx_Init", limit, connect).wait()
    }

    /// Number of this process, from 0.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.process.rank
    }

    /// Number of processes of the job.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Publishes a text by a key, once for each key.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a zero byte in the text, [`Error::TimedOut`], or that of the library.
    pub fn publish(&self, key: &str, text: String, limit: Duration) -> Result<(), Error> {
        let (functions, key) = (Arc::clone(&self.functions), layout::key(key)?);
        let text = CString::new(text).map_err(|_| Error::Value("value"))?;
        Call::start("PMIx_Put", limit, move || functions.publish(&key, &text)).wait()
    }

    /// Waits until all processes of the job have called this. After a fence that failed there must
    /// be no other one: processes may have left it that others are still in.
    pub fn fence(&self, limit: Duration) -> Call<Fence> {
        let functions = Arc::clone(&self.functions);
        let all = self.process.with_rank(RANK_WILDCARD);
        Call::start("PMIx_Fence", limit, move || {
            let arrived = Instant::now();
            functions.fence(&all, seconds(limit))?;
            Ok(Fence { arrived, left: Instant::now() })
        })
    }

    /// Text that a process has published by a key, or will publish in time.
    pub fn text_of(&self, rank: u32, key: &str, limit: Duration) -> Call<String> {
        let functions = Arc::clone(&self.functions);
        let (process, key) = (self.process.with_rank(rank), layout::key(key));
        Call::start("PMIx_Get", limit, move || functions.get_text(&process, &key?, seconds(limit)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let functions = Arc::clone(&self.functions);
        // Whether or not the launcher answers, this process has nothing more to say.
        let _ = Call::start("PMIx_Finalize", FINALIZE_TIMEOUT, move || functions.finalize()).wait();
    }
}

/// Whole seconds for the launcher, which knows no parts of them.
fn seconds(limit: Duration) -> c_int {
    let whole = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    c_int::try_from(whole.max(1)).unwrap_or(c_int::MAX)
}
