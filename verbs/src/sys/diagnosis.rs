//! Reasons why the RDMA files cannot be opened.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::Error;

/// The connection manager's file.
pub(super) const RDMA_CM: &str = "/dev/infiniband/rdma_cm";

/// The file of a machine's first device; librdmacm answers ENODEV when there is none.
const FIRST_DEVICE: &str = "/dev/infiniband/uverbs0";

/// Tells "not there" and "not for you" apart by looking at the file itself, since the libraries
/// hide the difference. Otherwise hands the error back.
pub(super) fn explain(path: &Path, source: io::Error) -> Result<Error, io::Error> {
    let path = PathBuf::from(path);
    match access(&path, Access::READ_OK | Access::WRITE_OK) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(Error::NoDevice { path }),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(Error::Permission { path }),
        _ if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(Error::NoDevice { path: FIRST_DEVICE.into() })
        }
        _ => Err(source),
    }
}

/// The device that this user may not open, if `status` of an event (a negative errno; -1 also
/// stands for any failure inside of librdmacm) may mean that.
pub(super) fn closed_device(status: i32) -> Option<Error> {
    if ![-libc::EPERM, -libc::EACCES].contains(&status) {
        return None;
    }
    let folder = std::fs::read_dir("/dev/infiniband").ok()?;
    folder
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"uverbs"))
        .map(|entry| entry.path())
        .find(|path| access(path, Access::READ_OK | Access::WRITE_OK).is_err())
        .map(|path| Error::Permission { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Error {
        io::Error::from_raw_os_error(libc::EMFILE)
    }

    #[test]
    fn a_missing_file_is_no_device() {
        let error = explain(Path::new("/dev/infiniband-of-nowhere/x"), refused());
        assert!(matches!(error, Ok(Error::NoDevice { .. })));
    }

    #[test]
    fn a_file_that_can_be_opened_is_not_the_reason() {
        let error = explain(Path::new("/dev/null"), refused()).expect_err("it can be opened");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }

    #[test]
    fn a_machine_without_devices_has_no_device() {
        let error = explain(Path::new("/dev/null"), io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(error, Ok(Error::NoDevice { .. })));
    }
}
