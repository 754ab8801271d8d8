//! Errors: a negative number of errno, a class, and a text of the calling thread.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_int},
    fmt::Display,
};

use nvmf_options::failure::Failure;
use rdma_host::{Error, ErrorClass, SubmitError, error::Misuse};

/// Failure of a call: one word, so that a call that succeeds moves no more than that.
#[derive(Debug)]
pub(crate) struct CallError(Box<Cause>);

/// Description of a failure.
#[derive(Debug)]
struct Cause {
    /// Number of errno.
    number: c_int,
    class: Class,
    text: String,
}

/// Class of an error; the numbers are those of the exit codes of `nvmf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Failed = 1,
    Caller = 2,
    Access = 3,
    Transport = 4,
}

/// Class and text of the last error of a thread.
struct LastError {
    class: c_int,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Option<LastError>> = const { RefCell::new(None) };
}

impl CallError {
    fn new(number: c_int, class: Class, text: String) -> Self {
        Self(Box::new(Cause { number, class, text }))
    }

    /// Wrong argument, or a call at the wrong time.
    pub(crate) fn caller(number: c_int, text: impl Display) -> Self {
        Self::new(number, Class::Caller, text.to_string())
    }

    pub(crate) fn invalid(text: impl Display) -> Self {
        Self::caller(libc::EINVAL, text)
    }

    /// Failure of this library, which is a bug of it.
    pub(crate) fn panicked() -> Self {
        let text = "a bug in libnvmf-rdma, told on standard error; close what the call was for";
        Self::new(libc::ENOTRECOVERABLE, Class::Failed, text.to_owned())
    }

    /// Failure of the operating system.
    pub(crate) fn system(what: &str, error: &std::io::Error) -> Self {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        Self::new(number, Class::Failed, format!("{what}: {error}"))
    }

    /// Number of errno.
    pub(crate) fn number(&self) -> c_int {
        self.0.number
    }

    /// Makes this the last error of the thread; returns the negative number.
    #[cold]
    pub(crate) fn report(self) -> c_int {
        let Cause { number, class, text } = *self.0;
        set_last(class, &text);
        -number
    }
}

/// Number of errno for an error, and its class.
pub(crate) fn number_of(error: &Error) -> (c_int, Class) {
    let class = Class::from(error.class());
    let number = match (error, class) {
        (Error::Misuse(Misuse::QueuesFull), _) => libc::EAGAIN,
        (Error::Closed | Error::Reset, _) => libc::ECANCELED,
        (Error::CommandTimeout { .. } | Error::KeepAlive(_) | Error::Timeout { .. }, _) => {
            libc::ETIMEDOUT
        }
        (_, Class::Caller) => libc::EINVAL,
        (_, Class::Access) => libc::EACCES,
        (_, Class::Transport) => libc::ENOTCONN,
        (_, Class::Failed) => libc::EIO,
    };
    (number, class)
}

/// Makes this the last error of the thread.
#[cold]
pub(crate) fn set_last(class: Class, text: &str) {
    // What a target sends, or a program, may hold any character.
    let shown = |c: char| if rdma_host::wire::is_unprintable(c) { '?' } else { c };
    let text: String = text.chars().map(shown).collect();
    let text = CString::new(text).unwrap_or_default();
    LAST.set(Some(LastError { class: class as c_int, text }));
}

/// Text of the last error of the thread, for as long as the thread makes no other call.
pub(crate) fn with_last_text<T>(use_text: impl FnOnce(&CStr) -> T) -> T {
    LAST.with_borrow(|last| use_text(last.as_ref().map_or(c"", |last| &last.text)))
}

/// Class of the last error of the thread; 0 for none.
pub(crate) fn last_class() -> c_int {
    LAST.with_borrow(|last| last.as_ref().map_or(0, |last| last.class))
}

impl From<ErrorClass> for Class {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Failed => Self::Failed,
            ErrorClass::Caller => Self::Caller,
            ErrorClass::Access => Self::Access,
            ErrorClass::Transport => Self::Transport,
        }
    }
}

impl From<Error> for CallError {
    #[cold]
    fn from(error: Error) -> Self {
        let (number, class) = number_of(&error);
        Self::new(number, class, error.to_string())
    }
}

impl From<SubmitError> for CallError {
    #[cold]
    fn from(error: SubmitError) -> Self {
        error.error.into()
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        let (number, class) = match failure.exit_code() {
            2 => (libc::EINVAL, Class::Caller),
            3 => (libc::EACCES, Class::Access),
            4 => (libc::ENOTCONN, Class::Transport),
            _ => (libc::EIO, Class::Failed),
        };
        Self::new(number, class, failure.to_string())
    }
}
