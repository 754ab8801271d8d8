//! Our changes to the kernel's source: small patches, each a file that begins with its reason.
//!
//! They touch User-Mode Linux and the cost of what software RoCE does, never what it does. A patch
//! is applied to the sources whose text it is for, whatever their version. All of them are part
//! of the cache's key.

use std::{fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, helper};

/// A change to the kernel's source.
struct Change {
    /// The change in a few words, for messages.
    name: &'static str,
    /// A kernel that needs the change and does not get it is of no use on some machines.
    required: bool,
    /// The forms of the change for different versions of the source.
    forms: &'static [Form],
}

/// A patch for the sources in which `file` contains `text`.
struct Form {
    file: &'static str,
    text: &'static str,
    patch: &'static str,
}

/// Includes a patch by its name.
macro_rules! patch {
    ($name:literal) => {
        include_str!(concat!("../../kernel/patches/", $name, ".patch"))
    };
}

const CHANGES: [Change; 4] = [
    Change {
        name: "room for the processor's extended state",
        required: true,
        forms: &[Form {
            file: "arch/x86/um/user-offsets.c",
            text: "DEFINE_LONGS(HOST_FP_SIZE, 2696);",
            patch: patch!("xstate-size"),
        }],
    },
    Change {
        name: "no second copy of the extended state",
        required: true,
        forms: &[Form {
            file: "arch/um/include/asm/thread_info.h",
            text: "aux_fp_regs[FP_SIZE]",
            patch: patch!("xstate-copy"),
        }],
    },
    Change {
        name: "fast checksums",
        required: false,
        forms: &[
            Form { file: "lib/crc32.c", text: "__weak crc32_le", patch: patch!("crc32-weak") },
            Form {
                file: "lib/crc/crc32-main.c",
                text: "#define crc32_le_arch crc32_le_base",
                patch: patch!("crc32-arch"),
            },
        ],
    },
    Change {
        name: "memory regions over 1 GiB",
        required: false,
        forms: &[
            Form {
                file: "drivers/infiniband/sw/rxe/rxe_mr.c",
                text: "mr->page_info = kcalloc(",
                patch: patch!("rxe-regions-kcalloc"),
            },
            Form {
                file: "drivers/infiniband/sw/rxe/rxe_mr.c",
                text: "mr->page_info = kzalloc_objs(",
                patch: patch!("rxe-regions-kzalloc-objs"),
            },
        ],
    },
];

/// The changes that a source got, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// Changes that were made.
    pub applied: Vec<String>,
    /// Changes that are not for this source: it has its own way, or another text.
    pub not_for_this_source: Vec<String>,
}

/// The text of all patches, for the cache's key.
pub(crate) fn text() -> impl Iterator<Item = &'static str> {
    CHANGES.iter().flat_map(|change| change.forms).map(|form| form.patch)
}

/// Applies what is for the source in `tree`.
pub(crate) fn apply(tree: &Path) -> Result<Patched> {
    let mut patched = Patched::default();
    for change in &CHANGES {
        let is_for = |form: &&Form| {
            let text = fs::read_to_string(tree.join(form.file));
            text.is_ok_and(|text| text.contains(form.text))
        };
        let done = match change.forms.iter().find(is_for) {
            None => false,
            Some(form) => match apply_one(tree, form.patch) {
                Ok(()) => true,
                Err(error) if change.required => {
                    return Err(Error::Patch { change: change.name, reason: error.to_string() });
                }
                Err(_) => false,
            },
        };
        let list = if done { &mut patched.applied } else { &mut patched.not_for_this_source };
        list.push(change.name.into());
    }
    Ok(patched)
}

/// Applies one patch, whole or not at all.
fn apply_one(tree: &Path, patch: &str) -> Result<()> {
    let file = tree.join(".soft-roce.patch");
    fs::write(&file, patch).map_err(Error::io("write", &file))?;
    let run = |more: &[&str]| {
        let mut command = Command::new("patch");
        command.args(["-p1", "--forward", "--fuzz=1", "--silent", "--reject-file=-"]).args(more);
        helper::check(command.arg("-i").arg(&file).current_dir(tree))
    };
    run(&["--dry-run"])?;
    run(&["--no-backup-if-mismatch"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree in which a form of each change finds its text, as 6.12 has it or 7.3.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const REGIONS: &str = "{\n\tmr->page_info = kcalloc(num_pages, sizeof(struct rxe_mr_page),\n\
                           \t\t\t\tGFP_KERNEL);\n}\n\n\tkfree(mr->page_info);\n\
                           \tmr->page_info = NULL;\n";

    #[test]
    fn every_patch_begins_with_its_reason() {
        for patch in text() {
            let reason = patch.split("--- ").next().unwrap();
            assert!(reason.split_whitespace().count() > 15, "{reason}");
        }
    }

    #[test]
    fn a_source_gets_the_changes_whose_text_it_has() {
        let tree = tree(&[("drivers/infiniband/sw/rxe/rxe_mr.c", REGIONS)]);
        let patched = apply(tree.path()).unwrap();
        assert_eq!(patched.applied, ["memory regions over 1 GiB"]);
        assert_eq!(patched.not_for_this_source.len(), CHANGES.len() - 1);
        let text = fs::read_to_string(tree.path().join("drivers/infiniband/sw/rxe/rxe_mr.c"));
        assert!(text.unwrap().contains("kvcalloc"));
    }

    #[test]
    fn a_required_change_that_does_not_fit_is_an_error() {
        let text = "\tDEFINE_LONGS(HOST_FP_SIZE, 2696);\n";
        let tree = tree(&[("arch/x86/um/user-offsets.c", text)]);
        let error = apply(tree.path()).unwrap_err().to_string();
        assert!(error.contains("extended state"), "{error}");
    }

    #[test]
    fn a_patch_is_applied_whole_or_not_at_all() {
        let half = REGIONS.replace("kfree", "kfree_sensitive");
        let tree = tree(&[("drivers/infiniband/sw/rxe/rxe_mr.c", &half)]);
        assert!(apply(tree.path()).unwrap().applied.is_empty());
        let path = tree.path().join("drivers/infiniband/sw/rxe/rxe_mr.c");
        assert_eq!(fs::read_to_string(path).unwrap(), half);
    }
}
