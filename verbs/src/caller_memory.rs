//! Memory of the caller: what can be registered, and what becomes of it when it is not.

use std::fmt;

use crate::Error;

/// Memory of the caller that can be [registered](crate::ProtectionDomain::register): a `Vec<u8>`
/// or a `Box<[u8]>`.
///
/// It is moved in and out. A posted buffer's memory cannot be looked at by another name:
///
/// ```compile_fail,E0382
/// # fn touch(domain: &verbs::ProtectionDomain, memory: Vec<u8>) {
/// let buffer = domain.register(memory, verbs::Access::LOCAL_WRITE);
/// println!("{}", memory[0]); // it comes back by `Buffer::deregister`
/// # }
/// ```
///
/// and a borrowed slice, which its owner may free, cannot be registered at all:
///
/// ```compile_fail,E0277
/// # fn lend(domain: &verbs::ProtectionDomain, memory: &'static mut [u8]) {
/// domain.register(memory, verbs::Access::LOCAL_WRITE);
/// # }
/// ```
pub trait CallerMemory: sealed::Sealed {
    #[doc(hidden)]
    fn into_vector(self) -> Vec<u8>;
    #[doc(hidden)]
    fn from_vector(vector: Vec<u8>) -> Self;
}

impl CallerMemory for Vec<u8> {
    fn into_vector(self) -> Vec<u8> {
        self
    }

    fn from_vector(vector: Vec<u8>) -> Self {
        vector
    }
}

impl CallerMemory for Box<[u8]> {
    fn into_vector(self) -> Vec<u8> {
        self.into_vec()
    }

    fn from_vector(vector: Vec<u8>) -> Self {
        vector.into_boxed_slice()
    }
}

mod sealed {
    /// Seal: only owners of heap memory that nothing else refers to may be registered.
    pub trait Sealed {}
    impl Sealed for Vec<u8> {}
    impl Sealed for Box<[u8]> {}
}

/// Memory that was not registered, with the error.
#[derive(Debug)]
pub struct RegisterError<M> {
    /// Error of the registration.
    pub error: Error,
    /// The memory, as it was given.
    pub memory: M,
}

impl<M> fmt::Display for RegisterError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory refused: {}", self.error)
    }
}

impl<M: fmt::Debug> std::error::Error for RegisterError<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl<M> From<RegisterError<M>> for Error {
    fn from(refused: RegisterError<M>) -> Self {
        refused.error
    }
}
