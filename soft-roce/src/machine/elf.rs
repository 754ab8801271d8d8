//! Reading of ELF files: a module's own description, and the libraries that a program needs.

use object::{
    Architecture as Processor, Endianness, Object, ObjectSection,
    read::elf::{ElfFile64, ProgramHeader},
};

use super::architecture::Architecture;

/// Returns the processor that a program is for; none when it is no ELF file or for another.
pub(super) fn architecture(bytes: &[u8]) -> Option<Architecture> {
    match parse(bytes)?.architecture() {
        Processor::Aarch64 => Some(Architecture::Aarch64),
        Processor::X86_64 => Some(Architecture::X86_64),
        _ => None,
    }
}

/// Dynamic loader and libraries of a program, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) interpreter: Option<String>,
    pub(super) libraries: Vec<String>,
}

/// Names what the loader brings to a program. A file that is no ELF file needs nothing.
pub(super) fn needs(bytes: &[u8]) -> Needs {
    let Some(file) = parse(bytes) else { return Needs::default() };
    let endian = file.endian();
    let interpreters = file.elf_program_headers().iter();
    let mut interpreters = interpreters.filter_map(|header| {
        let name = header.interpreter(endian, bytes).ok()??;
        Some(String::from_utf8_lossy(name).into_owned())
    });
    let mut libraries = Vec::new();
    if let Ok(table) = file.elf_dynamic_table() {
        let needed = table.iter().filter(|entry| entry.tag == object::elf::DT_NEEDED);
        let names = needed.filter_map(|entry| table.string(entry).ok());
        libraries.extend(names.map(|name| String::from_utf8_lossy(name).into_owned()));
    }
    Needs { interpreter: interpreters.next(), libraries }
}

/// Returns the part of a program or library that the loader maps: without symbols and debug
/// information, which come last. The section table, which then points nowhere, is left out.
pub(super) fn mapped_part(bytes: &[u8]) -> Vec<u8> {
    let Some(file) = parse(bytes) else { return bytes.to_vec() };
    let endian = file.endian();
    let headers = file.elf_program_headers().iter();
    let ends = headers.map(|header| {
        let (offset, size) = header.file_range(endian);
        usize::try_from(offset.saturating_add(size)).unwrap_or(usize::MAX)
    });
    let end = ends.max().unwrap_or(bytes.len()).min(bytes.len());
    let mut part = bytes[..end].to_vec();
    // Offset, entry size, number of entries and index of names in the header of a 64-bit file.
    for field in [0x28..0x30, 0x3a..0x40] {
        part[field].fill(0);
    }
    part
}

/// A module's description of itself, as `key=value` pairs: `depends`, `alias`, `softdep`, ….
pub(super) fn module_info(bytes: &[u8]) -> Vec<(String, String)> {
    let Some(file) = parse(bytes) else { return Vec::new() };
    let section = file.section_by_name(".modinfo").and_then(|section| section.data().ok());
    let texts = section.unwrap_or_default().split(|byte| *byte == 0);
    let pairs = texts.filter_map(|text| {
        let (key, value) = std::str::from_utf8(text).ok()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

fn parse(bytes: &[u8]) -> Option<ElfFile64<'_, Endianness>> {
    ElfFile64::parse(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_a_loader_and_libc() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let needs = needs(&bytes);
        assert!(needs.interpreter.as_deref().unwrap().contains("/ld-"), "{needs:?}");
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{needs:?}");
    }

    #[test]
    fn the_mapped_part_still_runs() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let part = mapped_part(&bytes);
        assert!(part.len() < bytes.len());
        assert_eq!(part[..0x28], bytes[..0x28]);
        let parsed = parse(&part).unwrap();
        assert_eq!(parsed.sections().count(), 0);
        assert_eq!(needs(&part).interpreter, needs(&bytes).interpreter);
    }

    #[test]
    fn other_files_are_taken_as_they_are() {
        assert_eq!(needs(b"#!/bin/sh\n"), Needs::default());
        assert_eq!(mapped_part(b"#!/bin/sh\n"), b"#!/bin/sh\n");
        assert_eq!(module_info(b""), []);
        assert_eq!(architecture(b"#!/bin/sh\n"), None);
    }
}
