//! Commands of a worker: direction, size and place on the namespace.

use rdma_host::{
    Buffer, Command, Data,
    wire::{NamespaceId, NamespaceInfo, Sqe},
};

use super::{
    arguments::AccessPattern,
    block_sizes::BlockSizes,
    random_distribution::{RandomDistribution, SkewedOffsets},
};
use crate::{
    data_pattern::{DataPattern, mix, random_below},
    failure::Failure,
};

/// Generator of one worker's commands; the sequence depends on the seed alone.
pub(super) struct CommandGenerator {
    pattern: AccessPattern,
    read_percent: u64,
    block_sizes: BlockSizes,
    /// The block sizes, in their order.
    sizes: Vec<CommandSize>,
    /// Choosers of offsets for each size; empty if all offsets are equally frequent.
    skewed_offsets: Vec<SkewedOffsets>,
    namespace: NamespaceId,
    /// Binary logarithm of the namespace's block size.
    block_shift: u32,
    /// Bytes before those of the namespace to use.
    region_start: u64,
    /// Bytes of the namespace to use.
    region_bytes: u64,
    /// Offset of the next sequential command in the region, in bytes.
    next: u64,
    /// Seed of this worker, plus the number of requests.
    state: u64,
    verify: Option<Verify>,
}

/// A block size, and what follows from it.
#[derive(Clone, Copy)]
struct CommandSize {
    bytes: u64,
    /// Blocks of the namespace.
    blocks: u32,
    /// Number of offsets for random commands: multiples of the size in the region.
    offsets: u64,
}

/// Data to write, and to compare with what is read. All commands write the same data to a block,
/// so that commands in flight may overlap: corrupt, torn and misplaced data is found, stale data is
/// not.
struct Verify {
    pattern: DataPattern,
    scratch: Vec<u8>,
}

/// One command to submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IoRequest {
    /// Index of its size among the block sizes.
    pub(super) size: usize,
    pub(super) bytes: u64,
    /// Bytes from the start of the namespace.
    pub(super) offset: u64,
    /// Blocks of the namespace.
    pub(super) blocks: u32,
    pub(super) write: bool,
}

/// Settings that the generators of all workers share.
#[derive(Clone, Copy)]
pub(super) struct GeneratorOptions<'a> {
    pub(super) pattern: AccessPattern,
    pub(super) read_percent: u8,
    pub(super) block_sizes: &'a BlockSizes,
    pub(super) distribution: RandomDistribution,
    pub(super) namespace: NamespaceInfo,
    pub(super) region_start: u64,
    pub(super) region_bytes: u64,
    pub(super) seed: u64,
    /// Number by which random numbers differ from those of other processes with this seed.
    pub(super) stream: u64,
    pub(super) verify: bool,
}

impl CommandGenerator {
    /// Generator of worker `index` of `workers`. Sequential patterns start at equal distances over
    /// the region.
    pub(super) fn new(options: GeneratorOptions<'_>, index: usize, workers: usize) -> Self {
        let largest = options.block_sizes.largest();
        let offsets = options.region_bytes / largest;
        let bytes = usize::try_from(largest).expect("a command's bytes fit memory");
        let verify =
            || Verify { pattern: DataPattern::new(options.seed, 0), scratch: vec![0; bytes] };
        let skewed_offsets = options.block_sizes.sizes().filter_map(|bytes| {
            SkewedOffsets::new(options.distribution, options.region_bytes / bytes, options.seed)
        });
        let block_size = u64::from(options.namespace.block_size);
        let size = |bytes| CommandSize {
            bytes,
            blocks: u32::try_from(bytes / block_size).expect("a command has few blocks"),
            offsets: options.region_bytes / bytes,
        };
        Self {
            skewed_offsets: skewed_offsets.collect(),
            pattern: options.pattern,
            read_percent: options.read_percent.into(),
            block_sizes: options.block_sizes.clone(),
            sizes: options.block_sizes.sizes().map(size).collect(),
            namespace: options.namespace.id,
            block_shift: block_size.trailing_zeros(),
            region_start: options.region_start,
            region_bytes: options.region_bytes,
            next: offsets / workers as u64 * index as u64 * largest,
            state: mix(options.seed ^ mix(options.stream + index as u64 + 1)),
            verify: options.verify.then(verify),
        }
    }

    /// Next request, a write or a read if `write` says so.
    #[inline(always)]
    pub(super) fn next(&mut self, write: Option<bool>) -> IoRequest {
        self.state = self.state.wrapping_add(1);
        let random = mix(self.state);
        let size = if self.sizes.len() == 1 { 0 } else { self.block_sizes.choose(mix(random ^ 1)) };
        let CommandSize { bytes, blocks, offsets } = self.sizes[size];
        let write = write.unwrap_or_else(|| self.is_write(random));
        let offset = if let Some(offsets) = self.skewed_offsets.get(size) {
            offsets.choose(random) * bytes
        } else if self.pattern.is_random() {
            random_below(random, offsets) * bytes
        } else {
            let offset = if self.next + bytes > self.region_bytes { 0 } else { self.next };
            self.next = offset + bytes;
            offset
        };
        let offset = self.region_start + offset;
        IoRequest { size, bytes, offset, blocks, write }
    }

    #[inline]
    fn is_write(&self, random: u64) -> bool {
        match self.read_percent {
            0 => true,
            100 => false,
            percent => mix(random ^ 2) % 100 >= percent,
        }
    }

    /// Command for a request, with the data to write in its buffer and a tag.
    #[inline]
    pub(super) fn command(&mut self, request: IoRequest, mut buffer: Buffer, user: u64) -> Command {
        if request.write || self.verifies() {
            self.fill(request.write, request.offset, &mut buffer);
        }
        let lba = request.offset >> self.block_shift;
        // Put together once: it is large.
        let (sqe, data) = if request.write {
            (Sqe::write(self.namespace, lba, request.blocks), Data::ToController(buffer))
        } else {
            (Sqe::read(self.namespace, lba, request.blocks), Data::FromController(buffer))
        };
        Command { sqe, data, user }
    }

    /// Puts the data to write into the buffer.
    fn fill(&mut self, write: bool, offset: u64, buffer: &mut Buffer) {
        match (write, &mut self.verify) {
            (true, Some(verify)) => {
                let bytes = &mut verify.scratch[..buffer.len()];
                verify.pattern.fill(offset, bytes);
                buffer.copy_in(0, bytes);
            }
            (true, None) => {
                // Not all zeros, and not the same everywhere: a target may treat such blocks
                // better.
                buffer.copy_in(0, &mix(!self.state).to_le_bytes());
            }
            // Data that the last command left must not pass for what this one read.
            (false, Some(_)) => buffer.fill(0),
            (false, None) => {}
        }
    }

    /// Returns true if the options ask for the data of reads to be checked.
    #[inline]
    pub(super) fn verifies(&self) -> bool {
        self.verify.is_some()
    }

    /// Checks the data of a read, if the options say so.
    pub(super) fn check(
        &mut self,
        write: bool,
        offset: u64,
        buffer: Option<&Buffer>,
    ) -> Result<(), Failure> {
        let (Some(verify), Some(buffer), false) = (&mut self.verify, buffer, write) else {
            return Ok(());
        };
        let bytes = &mut verify.scratch[..buffer.len()];
        buffer.copy_out(0, bytes);
        verify.pattern.check(offset, bytes).map_err(|difference| {
            Failure::mismatch(format!(
                "data mismatch at byte {} of the namespace: expected {:#018x}, found {:#018x}",
                difference.offset, difference.expected, difference.found
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use rdma_host::wire::MetadataFormat;

    use super::*;

    fn generator(pattern: AccessPattern, sizes: &str, index: usize) -> CommandGenerator {
        generator_of(RandomDistribution::Random, pattern, sizes, index)
    }

    fn generator_of(
        distribution: RandomDistribution,
        pattern: AccessPattern,
        sizes: &str,
        index: usize,
    ) -> CommandGenerator {
        let namespace = NamespaceInfo {
            id: NamespaceId(1),
            blocks: 256,
            block_size: 4096,
            metadata: MetadataFormat::default(),
            nguid: None,
            eui64: None,
            uuid: None,
            command_set: 0,
            ana_group: 0,
        };
        let options = GeneratorOptions {
            pattern,
            read_percent: pattern.read_percent(70),
            block_sizes: &sizes.parse().unwrap(),
            distribution,
            namespace,
            region_start: 0,
            region_bytes: 1 << 20,
            seed: 1,
            stream: 0,
            verify: false,
        };
        CommandGenerator::new(options, index, 2)
    }

    #[test]
    fn random_commands_are_aligned_inside_and_mixed_as_asked() {
        let mut generator = generator(AccessPattern::Randrw, "4K:3,64K:1", 0);
        let requests: Vec<_> = (0..10_000).map(|_| generator.next(None)).collect();
        for request in &requests {
            assert!(request.offset.is_multiple_of(request.bytes));
            assert!(request.offset + request.bytes <= 1 << 20);
        }
        let share = |count: usize| count as f64 / requests.len() as f64;
        let reads = share(requests.iter().filter(|request| !request.write).count());
        let small = share(requests.iter().filter(|request| request.bytes == 4096).count());
        assert!((reads - 0.70).abs() < 0.02 && (small - 0.75).abs() < 0.02, "{reads} {small}");
    }

    #[test]
    fn sequential_commands_wrap_at_the_end_of_the_region() {
        let mut generator = generator(AccessPattern::Read, "64K", 1);
        let offsets: Vec<_> = (0..10).map(|_| generator.next(None).offset >> 16).collect();
        assert_eq!(offsets, [8, 9, 10, 11, 12, 13, 14, 15, 0, 1]);
    }

    /// All workers have the same frequent offsets, of each size.
    #[test]
    fn offsets_of_a_skewed_distribution_are_inside_and_common_to_all_workers() {
        let zipf = RandomDistribution::Zipf { theta: 1.5 };
        let most_frequent = |index| {
            let mut generator = generator_of(zipf, AccessPattern::Randread, "4K:1,64K:1", index);
            let mut hits = std::collections::BTreeMap::new();
            for _ in 0..10_000 {
                let request = generator.next(None);
                assert!(request.offset.is_multiple_of(request.bytes));
                assert!(request.offset + request.bytes <= 1 << 20);
                *hits.entry((request.bytes, request.offset)).or_insert(0) += 1;
            }
            let (offset, hits) = hits.into_iter().max_by_key(|&(_, hits)| hits).unwrap();
            assert!(hits > 1500, "{hits}");
            offset
        };
        assert_eq!(most_frequent(0), most_frequent(1));
    }

    #[test]
    fn the_direction_is_that_of_the_rate() {
        let mut generator = generator(AccessPattern::Randrw, "4K", 0);
        assert!((0..100).all(|_| generator.next(Some(true)).write));
        assert!((0..100).all(|_| !generator.next(Some(false)).write));
    }

    #[test]
    fn reads_only_read() {
        let mut generator = generator(AccessPattern::Randread, "4K", 0);
        assert!((0..1000).all(|_| !generator.next(None).write));
    }
}
