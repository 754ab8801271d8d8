//! Connection of this process to its launcher.

use std::{
    ffi::{CString, c_int},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    call::Call,
    error::Error,
    layout::{self, COLLECT_DATA, Info, JOB_SIZE, Process, RANK_WILDCARD},
    sys::Functions,
};

/// Time that the launcher has to take leave of this process.
const FINALIZE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two looks for a text that was not found.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// Status `PMIX_ERR_NOT_FOUND`.
const NOT_FOUND: c_int = -46;

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
            let size = functions.get_u32(&all, &layout::key(JOB_SIZE)?, &[timeout(limit)]);
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
        self.fence_with(limit, false)
    }

    /// As [`fence`](Self::fence), and all processes have what all have published before.
    pub fn exchange(&self, limit: Duration) -> Call<Fence> {
        self.fence_with(limit, true)
    }

    fn fence_with(&self, limit: Duration, collects: bool) -> Call<Fence> {
        let functions = Arc::clone(&self.functions);
        let all = self.process.with_rank(RANK_WILDCARD);
        Call::start("PMIx_Fence", limit, move || {
            let mut attributes = vec![timeout(limit)];
            attributes.extend(collects.then(|| Info::flag(COLLECT_DATA)));
            let arrived = Instant::now();
            functions.fence(&all, &attributes)?;
            Ok(Fence { arrived, left: Instant::now() })
        })
    }

    /// Text that a process has published by a key, or will publish in time.
    pub fn text_of(&self, rank: u32, key: &str, limit: Duration) -> Call<String> {
        let functions = Arc::clone(&self.functions);
        let (process, key) = (self.process.with_rank(rank), layout::key(key));
        let deadline = Instant::now() + limit;
        Call::start("PMIx_Get", limit, move || {
            let key = key?;
            loop {
                let attributes = [timeout(limit)];
                match functions.get_text(&process, &key, &attributes) {
                    // Of a process that has published other keys, the library does not wait for
                    // more. PMIX_GET_REFRESH_CACHE is no help: where PMIx 4.2 and 5.0 keep values
                    // in each process, they wait for their deadline then.
                    Err(Error::Status { status: NOT_FOUND, .. }) if Instant::now() < deadline => {
                        thread::sleep(RETRY_INTERVAL);
                    }
                    result => return result,
                }
            }
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let functions = Arc::clone(&self.functions);
        // Whether or not the launcher answers, this process has nothing more to say.
        let _ = Call::start("PMIx_Finalize", FINALIZE_TIMEOUT, move || functions.finalize()).wait();
    }
}

/// Attribute that limits a call in whole seconds: the launcher knows no parts of them.
fn timeout(limit: Duration) -> Info {
    let whole = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    Info::timeout(c_int::try_from(whole.max(1)).unwrap_or(c_int::MAX))
}
