//! Signatures of partition tables, file systems and volumes: what a namespace holds already.

/// Signature, and the bytes of a disk by which it is recognised.
struct Signature {
    name: &'static str,
    /// Offset from the start of the disk.
    offset: usize,
    bytes: &'static [u8],
}

const fn signature(name: &'static str, offset: usize, bytes: &'static [u8]) -> Signature {
    Signature { name, offset, bytes }
}

/// Signatures at one place of the first mebibyte. Offsets and bytes are those of the superblock
/// structures in the kernel's sources (`fs/`, `include/uapi/linux/magic.h`, `drivers/md`), of
/// LVM2's `lib/format_text/layout.h`, of LUKS's on-disk format, of OpenZFS's `uberblock_impl.h`,
/// and as in the probes of libblkid (util-linux, `libblkid/src`), whose tools name them alike.
const SIGNATURES: &[Signature] = &[
    signature("an APFS container", 0x20, b"NXSB"),
    signature("a bcache device", 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    signature("a bcachefs file system", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    signature("a BitLocker volume", 3, b"-FVE-FS-"),
    signature("a Ceph BlueStore device", 0, b"bluestore block device"),
    signature("a btrfs file system", 0x1_0040, b"_BHRfS_M"),
    signature("an EROFS file system", 0x400, b"\xe2\xe1\xf5\xe0"),
    signature("an exFAT file system", 3, b"EXFAT   "),
    signature("an F2FS file system", 0x400, b"\x10\x20\xf5\xf2"),
    signature("a FAT file system", 0x36, b"FAT12   "),
    signature("a FAT file system", 0x36, b"FAT16   "),
    signature("a FAT file system", 0x52, b"FAT32   "),
    signature("a GFS2 file system", 0x1_0000, b"\x01\x16\x19\x70"),
    signature("an HFS+ file system", 0x400, b"H+\x00\x04"),
    signature("an HFS+ file system", 0x400, b"HX\x00\x05"),
    signature("an ISO 9660 file system", 0x8001, b"CD001"),
    signature("a JFS file system", 0x8000, b"JFS1"),
    signature("a LUKS volume", 0, b"LUKS\xba\xbe"),
    signature("a LUKS volume", 0x4000, b"SKUL\xba\xbe"),
    signature("a member of a Linux RAID", 0, b"\xfc\x4e\x2b\xa9"),
    signature("a member of a Linux RAID", 0x1000, b"\xfc\x4e\x2b\xa9"),
    signature("an NTFS file system", 3, b"NTFS    "),
    signature("an OCFS2 file system", 0x400, b"OCFSV2"),
    signature("an OCFS2 file system", 0x800, b"OCFSV2"),
    signature("an OCFS2 file system", 0x1000, b"OCFSV2"),
    signature("an OCFS2 file system", 0x2000, b"OCFSV2"),
    signature("an Oracle ASM disk", 0x20, b"ORCLDISK"),
    signature("a ReiserFS file system", 0x1_0034, b"ReIsEr"),
    signature("a SquashFS file system", 0, b"hsqs"),
    signature("a Stratis pool", 0x204, b"!Stra0tis\x86\xff\x02^\x41rh"),
    signature("a Stratis pool", 0x1204, b"!Stra0tis\x86\xff\x02^\x41rh"),
    signature("a UDF file system", 0x8001, b"BEA01"),
    signature("a VDO volume", 0, b"dmvdo001"),
    signature("an XFS file system", 0, b"XFSB"),
];

/// Last ten bytes of the first page of swap space, whatever the size of a page, and of an image of
/// suspended memory in it.
const SWAP_MAGICS: [&[u8; 10]; 5] =
    [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0", b"LINHIB0001"];

/// Magic number of a superblock of Linux RAID, in the byte order of a host that wrote it.
const RAID_MAGICS: [&[u8; 4]; 2] = [b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc"];

/// Bytes of a label of ZFS, of which two are at the start of a disk and two at its end, and where
/// its ring of uberblocks begins (OpenZFS, `vdev_impl.h`).
const ZFS_LABEL_BYTES: usize = 256 << 10;
const ZFS_RING_START: usize = 128 << 10;

/// First and last bytes of a namespace, at most [`SAMPLE_BYTES`] each.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskSample {
    /// Bytes of the namespace.
    pub(crate) bytes: u64,
    /// Bytes of a logical block.
    pub(crate) block_size: usize,
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

/// Bytes of a [`DiskSample`] at either end; none of the signatures is further from it.
pub(crate) const SAMPLE_BYTES: usize = 1 << 20;

impl DiskSample {
    /// Name of the first signature found, with its article.
    pub(crate) fn signature(&self) -> Option<&'static str> {
        let fixed = SIGNATURES.iter().find(|one| self.has(one.offset, one.bytes));
        fixed.map(|one| one.name).or_else(|| {
            let others = [
                (self.has_gpt(), "a GUID partition table (GPT)"),
                (self.has_lvm(), "an LVM physical volume"),
                (self.has_ext(), "an ext2, ext3 or ext4 file system"),
                (self.has_swap(), "swap space"),
                (self.has_raid_at_end(), "a member of a Linux RAID"),
                (self.has_firmware_raid(), "a member of a RAID set of the firmware"),
                (self.has_zfs(), "a member of a ZFS pool"),
                (self.has_mbr(), "a partition table (MBR)"),
            ];
            others.into_iter().find(|(found, _)| *found).map(|(_, name)| name)
        })
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.head.get(offset..)?.first_chunk().copied()
    }

    fn has(&self, offset: usize, bytes: &[u8]) -> bool {
        self.head.get(offset..).is_some_and(|rest| rest.starts_with(bytes))
    }

    /// Bytes of the disk from an offset on that is in the last [`SAMPLE_BYTES`].
    fn tail_at(&self, offset: u64) -> Option<&[u8]> {
        let start = self.bytes.checked_sub(self.tail.len() as u64)?;
        self.tail.get(usize::try_from(offset.checked_sub(start)?).ok()?..)
    }

    /// True if there are these bytes at a distance from the end of the disk.
    fn ends_with(&self, distance: u64, bytes: &[u8]) -> bool {
        let at = self.bytes.checked_sub(distance).and_then(|offset| self.tail_at(offset));
        at.is_some_and(|rest| rest.starts_with(bytes))
    }

    /// Header of a GPT in the second logical block, or its backup in the last one (UEFI 5.3.2).
    fn has_gpt(&self) -> bool {
        const HEADER: &[u8] = b"EFI PART";
        self.has(self.block_size, HEADER) || self.ends_with(self.block_size as u64, HEADER)
    }

    /// Superblock of Linux RAID at the end of a disk: of format 0.90 in the last whole 64 KiB but
    /// one (`MD_NEW_SIZE_SECTORS`), of format 1.0 in the last 8 KiB to 12 KiB
    /// (`super_1_load`), at a multiple of 4 KiB.
    fn has_raid_at_end(&self) -> bool {
        let (old, new) = (64 << 10, 4 << 10);
        let places = [
            (self.bytes / old * old).checked_sub(old),
            self.bytes.checked_sub(2 * new).map(|offset| offset / new * new),
        ];
        places
            .into_iter()
            .flatten()
            .filter_map(|offset| self.tail_at(offset))
            .any(|rest| RAID_MAGICS.iter().any(|magic| rest.starts_with(*magic)))
    }

    /// Metadata of Intel's format in the last sector but one of 512 bytes, or header of SNIA's
    /// (DDF) in the last one.
    fn has_firmware_raid(&self) -> bool {
        self.ends_with(1024, b"Intel Raid ISM Cfg Sig.") || self.ends_with(512, b"\xde\x11\xde\x11")
    }

    /// Label of LVM2 in one of the first four sectors of 512 bytes.
    fn has_lvm(&self) -> bool {
        (0..4).any(|sector| {
            self.has(sector * 512, b"LABELONE") && self.has(sector * 512 + 24, b"LVM2 001")
        })
    }

    /// Superblock of ext2 and its successors, whose magic number is just two bytes: the block size
    /// (`s_log_block_size`) and the revision (`s_rev_level`) must be ones that exist, too.
    fn has_ext(&self) -> bool {
        let number = |offset| self.bytes(offset).map_or(u32::MAX, u32::from_le_bytes);
        self.has(0x438, b"\x53\xef") && number(0x418) <= 6 && number(0x44c) <= 1
    }

    fn has_swap(&self) -> bool {
        let ends = (12..=16).map(|exponent| 1usize << exponent);
        ends.map(|end| end - 10).any(|at| SWAP_MAGICS.iter().any(|magic| self.has(at, *magic)))
    }

    /// Uberblock of ZFS in the ring of one of the four labels, which has entries from 1 KiB on. The
    /// last two labels end where the last whole one of the disk ends.
    fn has_zfs(&self) -> bool {
        let magic = 0x00ba_b10c_u64;
        let label_bytes = ZFS_LABEL_BYTES as u64;
        let end = self.bytes / label_bytes * label_bytes;
        let at_end = [2, 1].map(|labels| end.checked_sub(labels * label_bytes));
        let heads = [0, ZFS_LABEL_BYTES].map(|label| self.head.get(label..));
        let tails = at_end.map(|label| label.and_then(|offset| self.tail_at(offset)));
        heads.into_iter().chain(tails).flatten().any(|label| {
            let ring = (ZFS_RING_START..ZFS_LABEL_BYTES).step_by(1 << 10);
            let mut entries = ring.filter_map(|offset| label.get(offset..)?.first_chunk());
            entries.any(|bytes| {
                let number = u64::from_le_bytes(*bytes);
                number == magic || number == magic.swap_bytes()
            })
        })
    }

    /// Master boot record. Its two bytes at the end are those of every boot sector, so that a
    /// partition must be there, too: its status 0 or 0x80, its type and its size not zero.
    fn has_mbr(&self) -> bool {
        let is_partition = |entry: [u8; 16]| {
            matches!(entry[0], 0 | 0x80) && entry[4] != 0 && entry[12..] != [0; 4]
        };
        let mut entries = (0..4).filter_map(|index| self.bytes(446 + index * 16));
        self.has(510, b"\x55\xaa") && entries.any(is_partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_pattern::mix;

    /// Bytes of a disk whose size is a multiple of neither 4 KiB nor 64 KiB.
    const DISK_BYTES: usize = (40 << 20) + 3 * 512;

    /// Disk of zeros but for these bytes, with blocks of 512 bytes.
    fn disk(parts: &[(usize, &[u8])]) -> DiskSample {
        let mut disk = DiskSample {
            bytes: DISK_BYTES as u64,
            block_size: 512,
            head: vec![0; SAMPLE_BYTES],
            tail: vec![0; SAMPLE_BYTES],
        };
        let tail = DISK_BYTES - SAMPLE_BYTES;
        for (offset, bytes) in parts {
            let place = match offset.checked_sub(tail) {
                Some(offset) => &mut disk.tail[offset..],
                None => &mut disk.head[*offset..],
            };
            place[..bytes.len()].copy_from_slice(bytes);
        }
        disk
    }

    #[test]
    fn every_signature_of_the_table_is_found() {
        for one in SIGNATURES {
            assert_eq!(disk(&[(one.offset, one.bytes)]).signature(), Some(one.name));
            assert!(one.offset + one.bytes.len() <= SAMPLE_BYTES);
        }
    }

    #[test]
    fn partition_tables_are_found() {
        let mut entry = [0; 16];
        (entry[4], entry[12]) = (0x83, 8);
        let mbr = disk(&[(446 + 16, &entry), (510, b"\x55\xaa")]);
        assert_eq!(mbr.signature(), Some("a partition table (MBR)"));
        // A boot sector alone has these two bytes, too.
        assert_eq!(disk(&[(510, b"\x55\xaa")]).signature(), None);
        let gpt = Some("a GUID partition table (GPT)");
        assert_eq!(disk(&[(512, b"EFI PART")]).signature(), gpt);
        let large = DiskSample { block_size: 4096, ..disk(&[(4096, b"EFI PART")]) };
        assert_eq!(large.signature(), gpt);
        let backup = disk(&[(DISK_BYTES - 512, b"EFI PART\0\0\x01\0")]);
        assert_eq!(backup.signature(), gpt);
    }

    #[test]
    fn file_systems_and_volumes_with_several_places_are_found() {
        let ext = disk(&[(0x438, b"\x53\xef"), (0x418, &[2]), (0x44c, &[1])]);
        assert_eq!(ext.signature(), Some("an ext2, ext3 or ext4 file system"));
        assert_eq!(disk(&[(0x438, b"\x53\xef"), (0x418, &[200])]).signature(), None);
        for page in [4096, 8192, 65_536] {
            assert_eq!(disk(&[(page - 10, b"SWAPSPACE2")]).signature(), Some("swap space"));
        }
        let lvm = disk(&[(512, b"LABELONE"), (536, b"LVM2 001")]);
        assert_eq!(lvm.signature(), Some("an LVM physical volume"));
        for uberblock in [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()] {
            let zfs = disk(&[((128 + 31) << 10, &uberblock)]);
            assert_eq!(zfs.signature(), Some("a member of a ZFS pool"));
        }
    }

    /// Places where `mdadm --create` of these formats, `zpool create` and a RAID's firmware put
    /// what they are known by, on a disk of 40 MiB and 1,536 bytes.
    #[test]
    fn what_lies_at_the_end_of_a_disk_is_found() {
        let mebibyte = 1 << 20;
        let raid = Some("a member of a Linux RAID");
        let old = 40 * mebibyte - (64 << 10);
        assert_eq!(disk(&[(old, b"\xfc\x4e\x2b\xa9\0\0\0\0\x5a\0\0\0")]).signature(), raid);
        assert_eq!(disk(&[(old, b"\xa9\x2b\x4e\xfc\0\0\0\0\0\0\0\x5a")]).signature(), raid);
        let new = 40 * mebibyte - (8 << 10);
        assert_eq!(disk(&[(new, b"\xfc\x4e\x2b\xa9\x01\0\0\0")]).signature(), raid);
        for other in [old - (64 << 10), old + 4096, new + 4096, new - 512] {
            assert_eq!(disk(&[(other, b"\xfc\x4e\x2b\xa9")]).signature(), None, "{other}");
        }
        let zfs = Some("a member of a ZFS pool");
        for label in [0, 256 << 10, 40 * mebibyte - (512 << 10), 40 * mebibyte - (256 << 10)] {
            for entry in [0, 31, 127] {
                let place = label + ((128 + entry) << 10);
                let found = disk(&[(place, &0x00ba_b10c_u64.to_le_bytes())]).signature();
                assert_eq!(found, zfs, "{place}");
            }
        }
        let firmware = Some("a member of a RAID set of the firmware");
        let end = DISK_BYTES;
        assert_eq!(disk(&[(end - 1024, b"Intel Raid ISM Cfg Sig. 1.3")]).signature(), firmware);
        assert_eq!(disk(&[(end - 512, b"\xde\x11\xde\x11")]).signature(), firmware);
    }

    #[test]
    fn a_disk_smaller_than_a_sample_is_looked_through() {
        let mut small = DiskSample {
            bytes: 128 << 10,
            block_size: 512,
            head: vec![0; 128 << 10],
            tail: vec![0; 128 << 10],
        };
        assert_eq!(small.signature(), None);
        small.tail[64 << 10..][..4].copy_from_slice(RAID_MAGICS[0]);
        assert_eq!(small.signature(), Some("a member of a Linux RAID"));
    }

    #[test]
    fn other_data_has_no_signature() {
        assert_eq!(DiskSample::default().signature(), None);
        assert_eq!(disk(&[]).signature(), None);
        let words = SAMPLE_BYTES as u64 / 8;
        let random =
            |from: u64| (from..from + words).flat_map(|at| mix(at).to_le_bytes()).collect();
        let random = DiskSample { head: random(0), tail: random(words), ..disk(&[]) };
        assert_eq!(random.signature(), None);
        let block = vec![0x55; 512];
        let short = DiskSample { bytes: 512, block_size: 512, head: block.clone(), tail: block };
        assert_eq!(short.signature(), None);
    }
}
