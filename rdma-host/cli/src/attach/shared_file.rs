//! `--share`: a file in memory, which the programs that use a device map as well.

use std::{
    fs::{self, File},
    path::Path,
};

use rdma_host::{Controller, SharedMemory};
use ublk::Control;

use crate::{failure::Failure, secret_text};

/// File whose memory requests transfer from and to without a copy.
pub(super) struct SharedFile {
    file: File,
    bytes: u64,
    /// Path for messages.
    path: String,
}

/// Types of file systems without a page cache that is written back, of which pages are pinned.
const TMPFS: i64 = 0x0102_1994;
const HUGETLBFS: i64 = 0x9584_58f6;

impl SharedFile {
    /// Opens a file, if the driver can share memory.
    pub(super) fn open(path: &Path, control: &mut Control) -> Result<Self, Failure> {
        if !control.features().is_ok_and(ublk::Features::shared_memory) {
            return Err(Failure::failed(
                "--share: this kernel's ublk driver knows no shared memory (UBLK_F_SHMEM_ZC): use \
                 Linux 7.1 or later",
            ));
        }
        let path_shown = secret_text::shown_path(path).to_string();
        let failed = |error| Failure::failed(format!("--share: {path_shown}: {error}"));
        // Nothing that an open has an effect on.
        let is_file = fs::metadata(path).map_err(failed)?.is_file();
        let refused = |why: &str| Err(Failure::usage(format!("--share: {path_shown}: {why}")));
        let kinds = "share a memfd, or a file of tmpfs (/dev/shm) or of huge pages";
        if !is_file {
            return refused(&format!("not a file; {kinds}"));
        }
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let kind = rustix::fs::fstatfs(&file).map_err(|errno| failed(errno.into()))?.f_type;
        if ![TMPFS, HUGETLBFS].contains(&kind) {
            return refused(&format!(
                "on a disk, or another file system that is not shared; {kinds}"
            ));
        }
        let bytes = file.metadata().map_err(failed)?.len();
        let (page, max) = (rustix::param::page_size() as u64, Control::SHARED_BYTES_MAX);
        if bytes == 0 || bytes > max || !bytes.is_multiple_of(page) {
            return refused(&format!(
                "{bytes} bytes; share whole pages of {page} bytes, {max} bytes at most"
            ));
        }
        Ok(Self { file, bytes, path: path_shown })
    }

    /// Registers the memory with the RDMA device.
    pub(super) fn register(&self, controller: &Controller) -> Result<SharedMemory, Failure> {
        let registered = controller.register_file(&self.file, 0..self.bytes);
        registered.map_err(|error| Failure::failed(format!("--share: {}: {error}", self.path)))
    }
}
