//! Known causes of a guest without a result, found by its kernel's messages.

/// Text of the kernel's log, and the cause that it shows.
///
/// In order of precedence: a text that follows from another cause stands below it.
const CAUSES: [(&[&str], &str); 10] = [
    (
        &["set fp regs failed", "get fp regs failed", "The extended state of this processor has"],
        "the processor has more registers (extended state, as with AMX) than this kernel was built \
         for; build it again with `soft-roce build`",
    ),
    (
        &["check_ptrace", "check_sysemu", "ptrace: Operation not permitted"],
        "this machine forbids ptrace, which the kernel needs: look for a seccomp profile of the \
         container and for kernel.yama.ptrace_scope, which must be less than 3",
    ),
    (
        &["must be not mounted noexec"],
        "the folder for the guest's memory is on a file system that is mounted noexec; set TMPDIR \
         to a folder on another",
    ),
    (
        &["soft-roce: cannot start"],
        "the kernel program cannot be executed: it is for another kind of processor, or its file \
         system is mounted noexec",
    ),
    (
        &["Unable to mount root fs", "Cannot open root device", "No filesystem could mount root"],
        "the guest cannot use the host's files as its root: the kernel has no hostfs, or an option \
         of --kernel-arg replaced the root; build it with `soft-roce build`",
    ),
    (
        &["No working init found", "Requested init"],
        "the guest cannot execute the soft-roce program: compare the kinds of processor, and the \
         rights to the folders above it",
    ),
    (
        &["System is deadlocked on memory", "Out of memory", "Failed to allocate"],
        "the guest has too little memory; give more with --mem",
    ),
    (
        &["Kernel mode signal 7", "(signal 7)", "write: No space left"],
        "the file system of the guest's memory is full: other programs have taken the space; free \
         some, or set TMPDIR to a larger folder",
    ),
    (
        &["(signal 9)"],
        "its kernel was killed from outside: by a user, or by this machine for want of memory",
    ),
    (&["sysrq triggered crash"], "the program asked for the crash by /proc/sysrq-trigger"),
];

/// Cause of an end without a result: `log` is the kernel's log, `reason` what the supervisor knows.
pub(crate) fn find(log: &str, reason: &str) -> Option<&'static str> {
    let shows = |text: &&str| log.contains(text) || reason.contains(text);
    CAUSES.iter().find(|(texts, _)| texts.iter().any(shows)).map(|(_, cause)| *cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_text_decides() {
        let log = "[ 0.3] userspace - ptrace set fp regs failed, errno = 14\n\
                   [ 0.4] Kernel panic - not syncing: No working init found.\n";
        assert!(find(log, "its kernel ended (exit 1)").unwrap().contains("AMX"));
        let log = "The extended state of this processor has 20000 bytes; this kernel has room\n";
        assert!(find(log, "its kernel ended (exit 1)").unwrap().contains("AMX"));
        let log = "Checking PROT_EXEC mmap in /x...Operation not permitted\n\
                   /x must be not mounted noexec\n";
        assert!(find(log, "").unwrap().contains("TMPDIR"));
        let log = "check_ptrace : expected SIGSTOP, got status = 256\n";
        assert!(find(log, "").unwrap().contains("ptrace_scope"));
        assert!(find("", "its kernel ended (signal 9)").unwrap().contains("killed"));
        assert_eq!(find("[ 0.1] rdma_rxe: loaded\n", "its kernel ended (exit 0)"), None);
    }
}
