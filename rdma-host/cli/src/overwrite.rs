//! Consent to overwrite blocks, for all commands that do.

use std::{
    io::{self, IsTerminal},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use clap::Args;
use rdma_host::{
    Buffer, Command, CommandCompletion, ProtectionAction, ProtectionOptions, Provider,
    RangeCommands,
    wire::{NamespaceId, NamespaceInfo, Nqn},
};

use crate::{
    block_layout::BlockLayout,
    connect::ConnectedController,
    failure::Failure,
    io_namespace::IoNamespace,
    load::{Load, Workload, completed_buffer},
    output,
    shutdown::ShutdownSignal,
    signature::{DiskSample, SAMPLE_BYTES},
    size,
};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Overwriting")]
pub(crate) struct OverwriteArguments {
    /// Overwrite without asking; required where there is no terminal to ask on.
    #[arg(long)]
    overwrite: bool,

    /// Overwrite a partition table, file system or volume, too.
    #[arg(long)]
    force: bool,
}

/// Consent of the user to one command.
#[derive(Debug)]
pub(crate) struct OverwriteConsent {
    command: &'static str,
    /// Ask on the terminal.
    asks: bool,
    force: bool,
    /// Namespaces that were checked, and may be overwritten.
    checked: Vec<NamespaceKey>,
}

/// Namespace of a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamespaceKey {
    subsystem: Nqn,
    id: NamespaceId,
}

impl OverwriteArguments {
    /// Consent to `command`, before it connects. `input_is_free` is false if standard input has the
    /// data, and no answer.
    ///
    /// # Errors
    ///
    /// Without `--overwrite`, where the user can't be asked.
    pub(crate) fn consent(
        &self,
        command: &'static str,
        input_is_free: bool,
    ) -> Result<OverwriteConsent, Failure> {
        let terminal = input_is_free && io::stdin().is_terminal() && io::stderr().is_terminal();
        if !self.overwrite && !terminal {
            return Err(Failure::usage(format!(
                "{command} overwrites blocks of the namespace, and there is no terminal to ask on; \
                 give --overwrite if that is intended"
            )));
        }
        let asks = !self.overwrite;
        Ok(OverwriteConsent { command, asks, force: self.force, checked: Vec::new() })
    }
}

impl OverwriteConsent {
    /// Checks the namespace of a controller: refuses to overwrite what is recognised there, and
    /// asks if it must.
    pub(crate) fn check<P: Provider>(
        &mut self,
        connected: &ConnectedController<P>,
        namespace: &IoNamespace,
    ) -> Result<(), Failure> {
        let info = namespace.info();
        // Blocks that are to be overwritten need not be right.
        let action = ProtectionAction::Caller;
        let options = ProtectionOptions { action, ..ProtectionOptions::default() };
        let layout = match namespace {
            IoNamespace::Controller(_) if info.metadata.bytes > 0 => {
                BlockLayout::new(&info, 0, options)
            }
            _ => BlockLayout::plain(&info),
        };
        let read = |lba, bytes| {
            let buffer = connected.controller.allocate(layout.buffer_bytes(bytes))?;
            let buffer = connected.runtime.run(layout.read(namespace, lba, buffer))?;
            let contents = contents(&buffer);
            Ok::<_, Failure>(layout.split(&contents).map_or(contents, |(data, _)| data))
        };
        let read_all = || {
            let blocks = sample_blocks(&info);
            let bytes =
                usize::try_from(blocks).map_err(Failure::failed)? * info.block_size as usize;
            Ok(sample(&info, read(0, bytes)?, read(info.blocks - blocks, bytes)?))
        };
        let shutdown = &connected.runtime.shutdown;
        self.check_sample(&connected.subsystem, info, read_all, Some(shutdown))
    }

    /// Checks the namespace of a load, as [`check`](Self::check) does; only once if there are
    /// several loads on it in turn.
    pub(crate) fn check_load<P: Provider>(&mut self, load: &mut Load<P>) -> Result<(), Failure> {
        let (subsystem, info) = (load.options.subsystem.clone(), load.namespace);
        self.refuse_zoned(&info)?;
        let shutdown = load.shutdown.clone();
        self.check_sample(&subsystem, info, || read_sample(load), Some(&shutdown))
    }

    /// Refuses a zoned namespace: the commands of a load are in flight together, and a zone takes
    /// its blocks in their order alone.
    fn refuse_zoned(&self, info: &NamespaceInfo) -> Result<(), Failure> {
        if !info.is_zoned() {
            return Ok(());
        }
        let (command, id) = (self.command, info.id);
        Err(Failure::usage(format!(
            "namespace {id} is zoned, and {command} writes blocks in no order of its zones; use \
             `nvmf write` or `nvmf zns zone-append`"
        )))
    }

    fn check_sample(
        &mut self,
        subsystem: &Nqn,
        info: NamespaceInfo,
        read: impl FnOnce() -> Result<DiskSample, Failure>,
        shutdown: Option<&ShutdownSignal>,
    ) -> Result<(), Failure> {
        let key = NamespaceKey { subsystem: subsystem.clone(), id: info.id };
        if self.checked.contains(&key) {
            return Ok(());
        }
        let command = self.command;
        if !self.force
            && let Some(found) = read()?.signature()
        {
            return Err(Failure::usage(format!(
                "namespace {} of {subsystem} has {found}; nothing was written; {command} \
                 overwrites it with --force",
                info.id
            )));
        }
        if self.asks {
            output::print_message(format_args!(
                "nvmf: {command} overwrites blocks of namespace {} of {subsystem} ({}); type yes \
                 to go on",
                info.id,
                size::format_bytes(info.bytes())
            ));
            let answer = read_answer(shutdown)?;
            if !answer.trim().eq_ignore_ascii_case("yes") {
                return Err(Failure::failed("nothing was written"));
            }
        }
        self.checked.push(key);
        Ok(())
    }
}

/// Reads a line from the terminal. Where signals are caught, one ends the wait.
fn read_answer(shutdown: Option<&ShutdownSignal>) -> Result<String, Failure> {
    /// Time between looks at the signals.
    const INTERVAL: Duration = Duration::from_millis(50);
    let (sender, answers) = mpsc::channel();
    // A read of the terminal can't be cancelled: the thread ends with the program.
    thread::spawn(move || {
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).map(|_| answer);
        let _ = sender.send(read);
    });
    loop {
        if let Ok(answer) = answers.recv_timeout(INTERVAL) {
            return answer.map_err(Failure::failed);
        }
        if let Some(signal) = shutdown.and_then(ShutdownSignal::get) {
            return Err(Failure::interrupted(signal));
        }
    }
}

/// Number of blocks in a sample at either end of a namespace.
fn sample_blocks(info: &NamespaceInfo) -> u64 {
    info.blocks.min((SAMPLE_BYTES / info.block_size as usize) as u64)
}

fn sample(info: &NamespaceInfo, head: Vec<u8>, tail: Vec<u8>) -> DiskSample {
    DiskSample { bytes: info.bytes(), block_size: info.block_size as usize, head, tail }
}

/// Bytes of a buffer.
fn contents(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    bytes
}

/// Reads the sample of a load's namespace, block by block on its queues.
fn read_sample<P: Provider>(load: &mut Load<P>) -> Result<DiskSample, Failure> {
    let info = load.namespace;
    let blocks = sample_blocks(&info);
    let tail_start = info.blocks - blocks;
    let lbas: Arc<[u64]> = (0..blocks).chain(tail_start.max(blocks)..info.blocks).collect();
    let (next, read) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let block_bytes = std::mem::replace(&mut load.block_bytes, info.block_size as usize);
    let outcome = load.run(|_| SampleReader {
        info,
        lbas: Arc::clone(&lbas),
        next: Arc::clone(&next),
        blocks: Arc::clone(&read),
    });
    load.block_bytes = block_bytes;
    outcome?;
    let mut read = std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
    read.sort_unstable_by_key(|(lba, _)| *lba);
    let bytes_of = |lbas: Range<u64>| {
        let within = read.iter().filter(|(lba, _)| lbas.contains(lba));
        within.flat_map(|(_, bytes)| bytes).copied().collect()
    };
    Ok(sample(&info, bytes_of(0..blocks), bytes_of(tail_start..info.blocks)))
}

/// Blocks that were read, by their numbers.
type ReadBlocks = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// Part of one thread in reading a sample; the threads take blocks from a common counter.
struct SampleReader {
    info: NamespaceInfo,
    lbas: Arc<[u64]>,
    next: Arc<AtomicUsize>,
    blocks: ReadBlocks,
}

impl Workload for SampleReader {
    fn next(&mut self, mut buffer: Buffer) -> Result<Command, Buffer> {
        let Some(&lba) = self.lbas.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
            return Err(buffer);
        };
        buffer.fill(0);
        Ok(Command::read(self.info.id, lba, 1, buffer).with_user(lba))
    }

    fn complete(&mut self, completion: CommandCompletion) -> Result<Buffer, Failure> {
        let lba = completion.user;
        let buffer = completed_buffer(completion, "Read", || format!("block {lba}"))?;
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push((lba, contents(&buffer)));
        Ok(buffer)
    }

    fn is_over(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.lbas.len()
    }
}

#[cfg(test)]
mod tests {
    use rdma_host::wire::MetadataFormat;

    use super::*;

    fn info(id: u32) -> NamespaceInfo {
        NamespaceInfo {
            id: NamespaceId(id),
            blocks: 2048,
            block_size: 512,
            metadata: MetadataFormat::default(),
            nguid: None,
            eui64: None,
            uuid: None,
            command_set: 0,
            ana_group: 0,
        }
    }

    fn partitioned() -> DiskSample {
        let mut head = vec![0; 4096];
        head[512..520].copy_from_slice(b"EFI PART");
        DiskSample { bytes: 4096, block_size: 512, head: head.clone(), tail: head }
    }

    fn consent(force: bool) -> OverwriteConsent {
        OverwriteConsent { command: "write", asks: false, force, checked: Vec::new() }
    }

    #[test]
    fn without_a_terminal_the_option_is_required() {
        // Tests have no terminal at standard input, or give the data there.
        let wanted = |overwrite| OverwriteArguments { overwrite, force: true };
        let refused = wanted(false).consent("write", false).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--overwrite"), "{refused}");
        assert!(!wanted(true).consent("write", false).unwrap().asks);
    }

    #[test]
    fn a_partition_table_is_overwritten_by_force_only() {
        let subsystem: Nqn = "nqn.x".parse().unwrap();
        let refused = consent(false).check_sample(&subsystem, info(1), || Ok(partitioned()), None);
        let refused = refused.unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        let message = refused.to_string();
        assert!(message.contains("GPT") && message.contains("--force"), "{message}");
        assert!(message.contains("nothing was written"), "{message}");
        let unread = || panic!("it is not read");
        consent(true).check_sample(&subsystem, info(1), unread, None).unwrap();
    }

    #[test]
    fn a_load_does_not_write_to_a_zoned_namespace() {
        consent(true).refuse_zoned(&info(1)).unwrap();
        let zoned = NamespaceInfo { command_set: NamespaceInfo::ZONED, ..info(3) };
        let refused = consent(true).refuse_zoned(&zoned).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().starts_with("namespace 3 is zoned, and write "), "{refused}");
    }

    #[test]
    fn each_namespace_is_checked_once() {
        let subsystem: Nqn = "nqn.x".parse().unwrap();
        let mut consent = consent(false);
        consent.check_sample(&subsystem, info(1), || Ok(DiskSample::default()), None).unwrap();
        // What the first point of a sweep wrote may look like anything.
        consent.check_sample(&subsystem, info(1), || Ok(partitioned()), None).unwrap();
        consent.check_sample(&subsystem, info(2), || Ok(partitioned()), None).unwrap_err();
    }
}
