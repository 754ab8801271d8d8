//! Which blocks a worker's commands are for.

use rdma_host::wire::NamespaceInfo;
use rdma_host::{Buffer, Command};

use super::arguments::Access;
use super::block_sizes::Blocks;
use crate::data_pattern::{Pattern, mix};
use crate::failure::Failure;

/// One worker's endless stream of commands.
pub(super) struct Stream {
    access: Access,
    reads_percent: u64,
    blocks: Blocks,
    sizes: Vec<u64>,
    namespace: NamespaceInfo,
    /// Bytes of the namespace to use.
    region: u64,
    /// Where the next sequential command stands, in bytes.
    next: u64,
    seed: u64,
    count: u64,
    verify: Option<Verify>,
}

/// Checks what is read. All passes write the same, so that commands in flight together may meet:
/// what is corrupt, torn or in the wrong place shows; what is stale does not.
struct Verify {
    pattern: Pattern,
    scratch: Vec<u8>,
}

/// What one command is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which of the sizes.
    pub(super) size: usize,
    pub(super) bytes: u64,
    /// Bytes from the start of the namespace.
    pub(super) offset: u64,
    pub(super) write: bool,
}

/// What all streams of a run have in common.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) access: Access,
    /// Reads among mixed commands, in percent.
    pub(super) rwmixread: u8,
    pub(super) blocks: &'a Blocks,
    pub(super) namespace: NamespaceInfo,
    pub(super) region: u64,
    pub(super) seed: u64,
    pub(super) verify: bool,
}

impl Stream {
    /// Worker `index` of `workers`; sequential ones start spread over the region.
    pub(super) fn new(shape: Shape<'_>, (index, workers): (usize, usize)) -> Self {
        let largest = shape.blocks.largest();
        let places = shape.region / largest;
        let pattern = Pattern::new(shape.seed, 0);
        let bytes = usize::try_from(largest).expect("a command's bytes fit memory");
        Self {
            access: shape.access,
            reads_percent: shape.access.reads_percent(shape.rwmixread).into(),
            blocks: shape.blocks.clone(),
            sizes: shape.blocks.sizes().collect(),
            namespace: shape.namespace,
            region: shape.region,
            next: places / workers as u64 * index as u64 * largest,
            seed: mix(shape.seed ^ mix(index as u64 + 1)),
            count: 0,
            verify: shape.verify.then(|| Verify { pattern, scratch: vec![0; bytes] }),
        }
    }

    pub(super) fn next(&mut self) -> Wanted {
        self.count = self.count.wrapping_add(1);
        let random = mix(self.seed.wrapping_add(self.count));
        let size = self.blocks.choose(mix(random ^ 1));
        let bytes = self.sizes[size];
        let write = mix(random ^ 2) % 100 >= self.reads_percent;
        let offset = if self.access.is_random() {
            random % (self.region / bytes) * bytes
        } else {
            let offset = if self.next + bytes > self.region { 0 } else { self.next };
            self.next = offset + bytes;
            offset
        };
        Wanted { size, bytes, offset, write }
    }

    /// The command for it.
    pub(super) fn command(&mut self, wanted: Wanted, mut buffer: Buffer) -> Command {
        let lba = wanted.offset / u64::from(self.namespace.block_size);
        let blocks = self.namespace.blocks_in(buffer.len());
        match (wanted.write, &mut self.verify) {
            (true, Some(verify)) => {
                let bytes = &mut verify.scratch[..buffer.len()];
                verify.pattern.fill(wanted.offset, bytes);
                buffer.copy_in(0, bytes);
            }
            (true, None) => {
                // Not all zeros, and not the same everywhere: a target may treat such blocks
                // better.
                buffer.copy_in(0, &mix(self.seed ^ self.count).to_le_bytes());
            }
            // What the last command left must not pass for what this one read.
            (false, Some(_)) => buffer.fill(0),
            (false, None) => {}
        }
        match wanted.write {
            true => Command::write(self.namespace.id, lba, blocks, buffer),
            false => Command::read(self.namespace.id, lba, blocks, buffer),
        }
    }

    /// Checks what was read, if that is asked for.
    pub(super) fn check(&mut self, wanted: Wanted, buffer: &Buffer) -> Result<(), Failure> {
        let Some(verify) = self.verify.as_mut().filter(|_| !wanted.write) else { return Ok(()) };
        let bytes = &mut verify.scratch[..buffer.len()];
        buffer.copy_out(0, bytes);
        verify.pattern.check(wanted.offset, bytes).map_err(|difference| {
            Failure::Mismatch(format!(
                "data mismatch at byte {} of the namespace: expected {:#018x}, found {:#018x}",
                difference.offset, difference.expected, difference.found
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use rdma_host::wire::NamespaceId;

    use super::*;

    fn stream(access: Access, blocks: &str, worker: (usize, usize)) -> Stream {
        let namespace = NamespaceInfo {
            id: NamespaceId(1),
            blocks: 256,
            block_size: 4096,
            nguid: None,
            eui64: None,
            uuid: None,
            command_set: 0,
        };
        let blocks: Blocks = blocks.parse().unwrap();
        let shape = Shape {
            access,
            rwmixread: 70,
            blocks: &blocks,
            namespace,
            region: 1 << 20,
            seed: 1,
            verify: false,
        };
        Stream::new(shape, worker)
    }

    #[test]
    fn random_commands_are_aligned_inside_and_mixed_as_asked() {
        let mut stream = stream(Access::Randrw, "4K:3,64K:1", (0, 1));
        let wanted: Vec<_> = (0..10_000).map(|_| stream.next()).collect();
        for wanted in &wanted {
            assert!(wanted.offset.is_multiple_of(wanted.bytes));
            assert!(wanted.offset + wanted.bytes <= 1 << 20);
        }
        let share = |count: usize| count as f64 / wanted.len() as f64;
        let reads = share(wanted.iter().filter(|wanted| !wanted.write).count());
        let small = share(wanted.iter().filter(|wanted| wanted.bytes == 4096).count());
        assert!((reads - 0.70).abs() < 0.02 && (small - 0.75).abs() < 0.02, "{reads} {small}");
    }

    #[test]
    fn sequential_commands_follow_each_other_round_the_region() {
        let mut stream = stream(Access::Read, "64K", (1, 2));
        let offsets: Vec<_> = (0..10).map(|_| stream.next().offset >> 16).collect();
        assert_eq!(offsets, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1]);
    }

    #[test]
    fn reads_only_read() {
        let mut stream = stream(Access::Randread, "4K", (0, 1));
        assert!((0..1000).all(|_| !stream.next().write));
    }
}
