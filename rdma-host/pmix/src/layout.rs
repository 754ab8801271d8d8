//! Structures of `pmix_common.h`, the same in versions 3 to 6 of the library, on 64-bit systems.
//! Their sizes are those of the largest member of each union, `pmix_envar_t`.

use std::ffi::{c_char, c_int};

use crate::error::Error;

/// Bytes of a namespace's name with its zero byte: `PMIX_MAX_NSLEN` + 1.
pub(crate) const NAMESPACE_BYTES: usize = 256;
/// Bytes of a key with its zero byte: `PMIX_MAX_KEYLEN` + 1.
pub(crate) const KEY_BYTES: usize = 512;

/// All ranks of a namespace: `PMIX_RANK_WILDCARD`.
pub(crate) const RANK_WILDCARD: u32 = u32::MAX - 1;
/// `PMIX_GLOBAL`: a value for the ranks of this host and of others.
pub(crate) const SCOPE_GLOBAL: u8 = 3;

/// `PMIX_JOB_SIZE`: number of ranks.
pub(crate) const JOB_SIZE: &str = "pmix.job.size";
/// `PMIX_COLLECT_DATA`: a fence gives all processes what all have published.
pub(crate) const COLLECT_DATA: &str = "pmix.collect";
/// `PMIX_TIMEOUT`: seconds after which the launcher gives a call up.
pub(crate) const TIMEOUT: &str = "pmix.timeout";

/// Values of `pmix_data_type_t`.
pub(crate) mod data_type {
    pub(crate) const BOOL: u16 = 1;
    pub(crate) const STRING: u16 = 3;
    pub(crate) const INT: u16 = 6;
    pub(crate) const UINT32: u16 = 14;
}

/// Zero-terminated key: `pmix_key_t`.
pub(crate) type Key = [u8; KEY_BYTES];

/// Process of a job: `pmix_proc_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pub(crate) namespace: [u8; NAMESPACE_BYTES],
    pub(crate) rank: u32,
}

/// Typed value: `pmix_value_t`.
#[repr(C)]
pub(crate) struct Value {
    pub(crate) data_type: u16,
    pub(crate) data: ValueData,
}

/// Members of the value's union that are used here, and the size of all.
#[repr(C)]
pub(crate) union ValueData {
    pub(crate) flag: bool,
    pub(crate) string: *mut c_char,
    pub(crate) integer: c_int,
    pub(crate) uint32: u32,
    pub(crate) all: [u64; 3],
}

/// Attribute of a call: `pmix_info_t`.
#[repr(C)]
pub(crate) struct Info {
    pub(crate) key: Key,
    pub(crate) flags: u32,
    pub(crate) value: Value,
}

impl Process {
    pub(crate) const fn new() -> Self {
        Self { namespace: [0; NAMESPACE_BYTES], rank: 0 }
    }

    /// Process of another rank, or all of them, in the same namespace.
    pub(crate) fn with_rank(self, rank: u32) -> Self {
        Self { rank, ..self }
    }
}

impl Info {
    /// Attribute that limits a call to this number of seconds.
    pub(crate) fn timeout(seconds: c_int) -> Self {
        let mut data = ValueData { all: [0; 3] };
        data.integer = seconds;
        Self::new(TIMEOUT, Value { data_type: data_type::INT, data })
    }

    /// Attribute that says yes.
    pub(crate) fn flag(name: &str) -> Self {
        let mut data = ValueData { all: [0; 3] };
        data.flag = true;
        Self::new(name, Value { data_type: data_type::BOOL, data })
    }

    fn new(name: &str, value: Value) -> Self {
        Self { key: key(name).expect("the names of attributes are short"), flags: 0, value }
    }
}

/// Key in the form of the library.
pub(crate) fn key(name: &str) -> Result<Key, Error> {
    let mut key = [0; KEY_BYTES];
    let fits = name.len() < KEY_BYTES && !name.contains('\0');
    let place = key.get_mut(..name.len()).filter(|_| fits);
    place.ok_or(Error::Value("key"))?.copy_from_slice(name.as_bytes());
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        mem::{offset_of, size_of},
        path::Path,
        process::Command,
    };

    use super::*;

    /// Folders with `pmix.h`, in the order in which they are looked at.
    const INCLUDES: [&str; 3] = [
        "/usr/lib/x86_64-linux-gnu/pmix2/include",
        "/usr/lib/aarch64-linux-gnu/pmix2/include",
        "/usr/include",
    ];

    /// The compiler's own sizes, offsets and numbers.
    #[test]
    fn layouts_are_those_of_the_header() {
        let has_header = |folder: &&&str| Path::new(**folder).join("pmix.h").exists();
        let (Some(include), true) = (
            INCLUDES.iter().find(has_header),
            Command::new("cc").arg("--version").output().is_ok(),
        ) else {
            println!("SKIPPED: no pmix.h or no cc; run: apt-get install libpmix-dev gcc");
            return;
        };
        let expected = [
            ("sizeof(pmix_proc_t)", size_of::<Process>()),
            ("offsetof(pmix_proc_t, rank)", offset_of!(Process, rank)),
            ("sizeof(pmix_value_t)", size_of::<Value>()),
            ("offsetof(pmix_value_t, data)", offset_of!(Value, data)),
            ("sizeof(pmix_info_t)", size_of::<Info>()),
            ("offsetof(pmix_info_t, flags)", offset_of!(Info, flags)),
            ("offsetof(pmix_info_t, value)", offset_of!(Info, value)),
            ("sizeof(pmix_key_t)", KEY_BYTES),
            ("sizeof(pmix_data_type_t)", size_of::<u16>()),
            ("sizeof(pmix_scope_t)", size_of::<u8>()),
            ("sizeof(pmix_status_t)", size_of::<c_int>()),
            ("PMIX_RANK_WILDCARD", RANK_WILDCARD as usize),
            ("PMIX_GLOBAL", SCOPE_GLOBAL.into()),
            ("PMIX_BOOL", data_type::BOOL.into()),
            ("PMIX_STRING", data_type::STRING.into()),
            ("PMIX_INT", data_type::INT.into()),
            ("PMIX_UINT32", data_type::UINT32.into()),
            (&format!("sizeof(PMIX_JOB_SIZE) == {}", JOB_SIZE.len() + 1), 1),
            (&format!("!strcmp(PMIX_JOB_SIZE, \"{JOB_SIZE}\")"), 1),
            (&format!("!strcmp(PMIX_COLLECT_DATA, \"{COLLECT_DATA}\")"), 1),
            (&format!("!strcmp(PMIX_TIMEOUT, \"{TIMEOUT}\")"), 1),
        ];
        let prints = expected.map(|(term, _)| format!("  printf(\"%zu\\n\", (size_t)({term}));\n"));
        let headers = ["pmix.h", "stddef.h", "stdio.h", "string.h"];
        let headers = headers.map(|header| format!("#include <{header}>\n")).concat();
        let folder = tempfile::tempdir().expect("a folder");
        let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
        fs::write(&source, format!("{headers}int main(void) {{\n{}}}\n", prints.concat()))
            .expect("the file is written");
        let compiled = Command::new("cc")
            .args([&format!("-I{include}"), "-o"])
            .args([&program, &source])
            .output()
            .expect("there is a compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let found = Command::new(program).output().expect("it was compiled").stdout;
        let found = String::from_utf8(found).expect("numbers");
        assert_eq!(found.lines().count(), expected.len());
        for (found, (term, value)) in found.lines().zip(expected) {
            assert_eq!(found, value.to_string(), "{term}");
        }
    }

    #[test]
    fn keys_are_zero_terminated() {
        let text = key("nvmf").expect("it is short");
        assert_eq!((&text[..5], text.len()), (&b"nvmf\0"[..], KEY_BYTES));
        assert!(key(&"x".repeat(KEY_BYTES - 1)).is_ok());
        for wrong in [&"x".repeat(KEY_BYTES), "a\0b"] {
            assert!(key(wrong).is_err());
        }
    }
}
