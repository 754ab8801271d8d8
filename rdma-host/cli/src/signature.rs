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

/// First bytes of a namespace, at most [`HEAD_BYTES`], and its last logical block.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskSample {
    pub(crate) head: Vec<u8>,
    pub(crate) last_block: Vec<u8>,
}

/// Bytes of a [`DiskSample::head`]; none of the signatures reaches beyond.
pub(crate) const HEAD_BYTES: usize = 1 << 20;

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

    /// Header of a GPT in the second logical block, or its backup in the last one (UEFI 5.3.2).
    fn has_gpt(&self) -> bool {
        const HEADER: &[u8] = b"EFI PART";
        self.has(self.last_block.len(), HEADER) || self.last_block.starts_with(HEADER)
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

    /// Uberblock of ZFS in the ring of the first label, which has entries from 1 KiB on.
    fn has_zfs(&self) -> bool {
        let magic = 0x00ba_b10c_u64;
        let ring = (128 << 10..256 << 10).step_by(1 << 10);
        let mut entries = ring.filter_map(|offset| self.bytes(offset).map(u64::from_le_bytes));
        entries.any(|number| number == magic || number == magic.swap_bytes())
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

    /// Disk of zeros but for these bytes, with blocks of 512 bytes.
    fn disk(parts: &[(usize, &[u8])]) -> DiskSample {
        let mut head = vec![0; HEAD_BYTES];
        for (offset, bytes) in parts {
            head[*offset..][..bytes.len()].copy_from_slice(bytes);
        }
        DiskSample { head, last_block: vec![0; 512] }
    }

    #[test]
    fn every_signature_of_the_table_is_found() {
        for one in SIGNATURES {
            assert_eq!(disk(&[(one.offset, one.bytes)]).signature(), Some(one.name));
            assert!(one.offset + one.bytes.len() <= HEAD_BYTES);
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
        let large = DiskSample { last_block: vec![0; 4096], ..disk(&[(4096, b"EFI PART")]) };
        assert_eq!(large.signature(), gpt);
        let backup = DiskSample { last_block: b"EFI PART\0\0\x01\0".to_vec(), ..disk(&[]) };
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

    #[test]
    fn other_data_has_no_signature() {
        assert_eq!(DiskSample::default().signature(), None);
        assert_eq!(disk(&[]).signature(), None);
        let head = (0..HEAD_BYTES as u64 / 8).flat_map(|at| mix(at).to_le_bytes()).collect();
        let random = DiskSample { head, last_block: vec![0xa5; 512] };
        assert_eq!(random.signature(), None);
        let short = DiskSample { head: vec![0x55; 512], last_block: vec![0x55; 512] };
        assert_eq!(short.signature(), None);
    }
}
