//! Functions of libpmix, opened when the program runs.
//!
//! # Safety
//!
//! The file exists because a library that is opened at run time has functions by address only. The
//! types of the functions are those of `pmix.h`, and the layouts of their arguments are checked
//! against that header by a test. The library is never closed: it has threads of its own. Its
//! functions may be called from any thread (PMIx Standard 4.1, section 2.5).

#![allow(unsafe_code)]

use std::{
    error::Error as _,
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem::ManuallyDrop,
    ptr,
};

use libloading::Library;

use crate::{
    error::Error,
    layout::{Info, Key, Process, SCOPE_GLOBAL, Value, ValueData, data_type},
};

/// Name by which all versions from 2 on are found.
const SONAME: &str = "libpmix.so.2";

type Init = unsafe extern "C" fn(*mut Process, *mut Info, usize) -> c_int;
type Finalize = unsafe extern "C" fn(*const Info, usize) -> c_int;
type Put = unsafe extern "C" fn(u8, *const u8, *mut Value) -> c_int;
type Commit = unsafe extern "C" fn() -> c_int;
type Fence = unsafe extern "C" fn(*const Process, usize, *const Info, usize) -> c_int;
type Get =
    unsafe extern "C" fn(*const Process, *const u8, *const Info, usize, *mut *mut Value) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int) -> *const c_char;

/// Functions of the library.
pub(crate) struct Functions {
    init: Init,
    finalize: Finalize,
    put: Put,
    commit: Commit,
    fence: Fence,
    get: Get,
    error_string: ErrorString,
}

impl Functions {
    /// Opens the library.
    pub(crate) fn open() -> Result<Self, Error> {
        // SAFETY: the initialisers of libpmix, which run here, need nothing of this program.
        let library = unsafe { Library::new(SONAME) };
        let library = ManuallyDrop::new(library.map_err(failed)?);
        Ok(Self {
            // SAFETY: the type is that of the declaration in pmix.h.
            init: unsafe { symbol(&library, c"PMIx_Init")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            finalize: unsafe { symbol(&library, c"PMIx_Finalize")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            put: unsafe { symbol(&library, c"PMIx_Put")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            commit: unsafe { symbol(&library, c"PMIx_Commit")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            fence: unsafe { symbol(&library, c"PMIx_Fence")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            get: unsafe { symbol(&library, c"PMIx_Get")? },
            // SAFETY: the type is that of the declaration in pmix.h.
            error_string: unsafe { symbol(&library, c"PMIx_Error_string")? },
        })
    }

    /// Connects to the launcher, and returns the name of this process.
    pub(crate) fn init(&self) -> Result<Process, Error> {
        let mut process = Process::new();
        // SAFETY: the process is written within its size; no attributes are given.
        let status = unsafe { (self.init)(&raw mut process, ptr::null_mut(), 0) };
        self.check("PMIx_Init", status).map(|()| process)
    }

    /// Disconnects from the launcher.
    pub(crate) fn finalize(&self) -> Result<(), Error> {
        // SAFETY: no attributes are given, and nothing of the library is in use afterwards.
        let status = unsafe { (self.finalize)(ptr::null(), 0) };
        self.check("PMIx_Finalize", status)
    }

    /// Publishes a text for the other ranks, which [`get_text`](Self::get_text) finds.
    pub(crate) fn publish(&self, key: &Key, text: &CString) -> Result<(), Error> {
        let data = ValueData { string: text.as_ptr().cast_mut() };
        let mut value = Value { data_type: data_type::STRING, data };
        // SAFETY: the library copies the key and the value, both zero-terminated, and changes
        // neither.
        let status = unsafe { (self.put)(SCOPE_GLOBAL, key.as_ptr(), &raw mut value) };
        self.check("PMIx_Put", status)?;
        // SAFETY: the function has no arguments, and any thread may call it.
        let status = unsafe { (self.commit)() };
        self.check("PMIx_Commit", status)
    }

    /// Waits until the processes that `all` names have called this.
    pub(crate) fn fence(&self, all: &Process, attributes: &[Info]) -> Result<(), Error> {
        let (first, count) = (attributes.as_ptr(), attributes.len());
        // SAFETY: one process and the attributes, which live until the call returns.
        let status = unsafe { (self.fence)(&raw const *all, 1, first, count) };
        self.check("PMIx_Fence", status)
    }

    /// Text that a process has published.
    pub(crate) fn get_text(
        &self,
        process: &Process,
        key: &Key,
        attributes: &[Info],
    ) -> Result<String, Error> {
        let value = self.get(process, key, attributes)?;
        // SAFETY: the library has returned a value that is aligned, initialised and ours.
        let Value { data_type, data } = unsafe { &*value };
        if *data_type != data_type::STRING {
            // What another type may own is left alone.
            return Err(Error::Value("value"));
        }
        // SAFETY: the type says that this member of the union is the valid one.
        let string = unsafe { data.string };
        // SAFETY: the library has returned a zero-terminated string, which is ours.
        let text = (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_owned());
        // SAFETY: the string was allocated by malloc, as the header's own release has it.
        unsafe { libc::free(string.cast::<c_void>()) };
        // SAFETY: so was the value, which nothing uses any more.
        unsafe { libc::free(value.cast::<c_void>()) };
        text.and_then(|text| text.into_string().ok()).ok_or(Error::Value("value"))
    }

    /// Number that the launcher knows of a process, or of all.
    pub(crate) fn get_u32(
        &self,
        process: &Process,
        key: &Key,
        attributes: &[Info],
    ) -> Result<u32, Error> {
        let value = self.get(process, key, attributes)?;
        // SAFETY: the library has returned a value that is aligned, initialised and ours.
        let Value { data_type, data } = unsafe { &*value };
        if *data_type != data_type::UINT32 {
            return Err(Error::Value("value"));
        }
        // SAFETY: the type says that this member of the union is the valid one.
        let number = unsafe { data.uint32 };
        // SAFETY: the value was allocated by malloc, and owns nothing.
        unsafe { libc::free(value.cast::<c_void>()) };
        Ok(number)
    }

    /// Value by a key, which the caller frees.
    fn get(&self, process: &Process, key: &Key, attributes: &[Info]) -> Result<*mut Value, Error> {
        let (first, count) = (attributes.as_ptr(), attributes.len());
        let mut value = ptr::null_mut();
        // SAFETY: process, key and attributes live until the call returns, which then writes one
        // pointer.
        let status =
            unsafe { (self.get)(&raw const *process, key.as_ptr(), first, count, &raw mut value) };
        self.check("PMIx_Get", status)?;
        if value.is_null() { Err(Error::Value("value")) } else { Ok(value) }
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any number, also one that is no status.
        let text = unsafe { (self.error_string)(status) };
        let text = if text.is_null() {
            "unknown status".to_owned()
        } else {
            // SAFETY: the library returns a static, zero-terminated string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(Error::Status { call, status, text })
    }
}

/// Function of the library.
///
/// # Safety
///
/// `T` must be the type of the function with this name.
unsafe fn symbol<T: Copy>(library: &Library, name: &CStr) -> Result<T, Error> {
    // SAFETY: the caller says that the type is right, and the library is never closed.
    unsafe { library.get::<T>(name) }.map(|symbol| *symbol).map_err(failed)
}

fn failed(error: libloading::Error) -> Error {
    // The linker's own words are those of the source.
    let source = error.source().map(ToString::to_string);
    Error::Library(source.unwrap_or_else(|| error.to_string()))
}
