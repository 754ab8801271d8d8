//! Options for metadata and protection information, with the names of nvme-cli.

use std::path::PathBuf;

use clap::Args;
use rdma_host::{ProtectionAction, ProtectionOptions, RangeCommands, wire::ProtectionChecks};

use super::{block_file::Input, passthrough::number};
use crate::{block_layout::BlockLayout, failure::Failure, io_namespace::IoNamespace, size};

#[derive(Args)]
#[command(next_help_heading = "Metadata")]
pub(crate) struct MetadataArguments {
    /// File of the metadata of the blocks, without their data.
    #[arg(long, value_name = "FILE")]
    pub(super) metadata: Option<PathBuf>,

    /// Bytes of metadata of all blocks, to be sure of its format.
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    metadata_size: Option<u64>,

    /// Protection information: the controller inserts and strips it (8), and checks guard (4),
    /// application tag (2) and reference tag (1) [default: this host computes and checks it].
    #[arg(long, value_name = "BITS", value_parser = prinfo)]
    prinfo: Option<u8>,

    /// Reference tag of the first block [default: from its address].
    #[arg(long, value_name = "TAG", value_parser = number::<u64>)]
    ref_tag: Option<u64>,

    /// Application tag [default: 0].
    #[arg(long, value_name = "TAG", value_parser = number::<u16>)]
    app_tag: Option<u16>,

    /// Bits of the application tag that are checked [default: none].
    #[arg(long, value_name = "MASK", value_parser = number::<u16>)]
    app_tag_mask: Option<u16>,

    /// Storage tag [default: 0, unchecked].
    #[arg(long, value_name = "TAG", value_parser = number::<u64>)]
    storage_tag: Option<u64>,

    /// Have the controller check the storage tag, with --prinfo.
    #[arg(long, requires = "prinfo", requires = "storage_tag")]
    storage_tag_check: bool,
}

impl MetadataArguments {
    /// Layout of the blocks of a namespace from `lba` on with these options.
    ///
    /// # Errors
    ///
    /// When they do not fit the namespace.
    pub(super) fn layout(&self, namespace: &IoNamespace, lba: u64) -> Result<BlockLayout, Failure> {
        let info = namespace.info();
        let plain = BlockLayout::plain(&info);
        let (id, metadata) = (info.id, info.metadata);
        if metadata.bytes == 0 {
            return match self.first_given() {
                None => Ok(plain),
                Some(option) => Err(Failure::usage(format!(
                    "namespace {id} has no metadata; leave {option} away"
                ))),
            };
        }
        if let IoNamespace::Subsystem(_) = namespace {
            return match self.first_given() {
                None => Ok(plain),
                Some(option) => Err(Failure::usage(format!(
                    "metadata is transferred over one path; give one address, or no {option}"
                ))),
            };
        }
        if metadata.protection.is_none()
            && let Some(option) = self.first_of_protection()
        {
            return Err(Failure::usage(format!(
                "the metadata of namespace {id} has no protection information; leave {option} away"
            )));
        }
        let layout = BlockLayout::new(&info, lba, self.options());
        if !layout.has_metadata() && self.metadata.is_some() {
            return Err(Failure::usage(format!(
                "the controller strips all metadata of namespace {id} by --prinfo 8; leave \
                 --metadata away"
            )));
        }
        Ok(layout)
    }

    /// File of the metadata written with the blocks: `bytes` bytes of data, if that is known.
    ///
    /// # Errors
    ///
    /// When it is missing, or too short.
    pub(super) fn input(
        &self,
        namespace: &IoNamespace,
        layout: &BlockLayout,
        bytes: Option<u64>,
    ) -> Result<Option<Input>, Failure> {
        self.check_size(layout, bytes)?;
        let info = namespace.info();
        let Some(path) = &self.metadata else {
            let is_made = layout.action() == Some(ProtectionAction::Host)
                && info.metadata.is_protection_only();
            if !layout.has_metadata() || is_made {
                return Ok(None);
            }
            return Err(Failure::usage(format!(
                "namespace {} has {} of metadata a block; give them with --metadata",
                info.id,
                size::format_bytes(info.metadata.bytes.into()),
            )));
        };
        let input = Input::open(path)?;
        match (input.bytes(), bytes.map(|bytes| layout.metadata_of(bytes))) {
            (Some(there), Some(needed)) if there < needed => Err(Failure::usage(format!(
                "{} has {there} bytes, the blocks' metadata has {needed}; nothing was written",
                input.name()
            ))),
            _ => Ok(Some(input)),
        }
    }

    /// Checks --metadata-size.
    ///
    /// # Errors
    ///
    /// When it is not the size of the metadata of blocks with `bytes` bytes of data.
    pub(super) fn check_size(
        &self,
        layout: &BlockLayout,
        bytes: Option<u64>,
    ) -> Result<(), Failure> {
        let Some(given) = self.metadata_size else { return Ok(()) };
        match bytes.map(|bytes| layout.metadata_of(bytes)) {
            None => Err(Failure::usage("--metadata-size is of a known number of blocks: --blocks")),
            Some(size) if size == given => Ok(()),
            Some(size) => Err(Failure::usage(format!(
                "--metadata-size {given}: the metadata of the blocks has {size} bytes"
            ))),
        }
    }

    fn options(&self) -> ProtectionOptions {
        let action = match self.prinfo {
            None => ProtectionAction::Host,
            Some(bits) if bits & 8 != 0 => ProtectionAction::Controller,
            Some(_) => ProtectionAction::Caller,
        };
        let checks = self.prinfo.map(|bits| ProtectionChecks {
            storage_tag: self.storage_tag_check,
            ..ProtectionChecks::of_bits(bits)
        });
        ProtectionOptions {
            action,
            checks,
            application_tag: self.app_tag.unwrap_or(0),
            application_tag_mask: self.app_tag_mask.unwrap_or(0),
            reference_tag: self.ref_tag,
            storage_tag: self.storage_tag,
        }
    }

    /// First option that was given.
    fn first_given(&self) -> Option<&'static str> {
        let own = [
            (self.metadata.is_some(), "--metadata"),
            (self.metadata_size.is_some(), "--metadata-size"),
        ];
        let first = own.into_iter().find(|(given, _)| *given).map(|(_, name)| name);
        first.or_else(|| self.first_of_protection())
    }

    /// First option of protection information that was given.
    fn first_of_protection(&self) -> Option<&'static str> {
        let all = [
            (self.prinfo.is_some(), "--prinfo"),
            (self.ref_tag.is_some(), "--ref-tag"),
            (self.app_tag.is_some(), "--app-tag"),
            (self.app_tag_mask.is_some(), "--app-tag-mask"),
            (self.storage_tag.is_some(), "--storage-tag"),
        ];
        all.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}

/// Content of a buffer with this data and the next metadata of the input, or zeros; `None` if the
/// buffer has the data alone.
///
/// # Errors
///
/// When the input ends early.
pub(super) fn read_joined(
    layout: &BlockLayout,
    data: &[u8],
    input: Option<&mut Input>,
    stop: impl Fn() -> bool,
) -> Result<Option<Vec<u8>>, Failure> {
    if !layout.has_metadata() {
        return Ok(None);
    }
    let bytes = layout.metadata_of(data.len() as u64);
    let mut metadata = vec![0; usize::try_from(bytes).map_err(Failure::failed)?];
    if let Some(input) = input
        && input.fill(&mut metadata, stop)? != Some(metadata.len())
    {
        let ended = format!("{} has less metadata than there are blocks", input.name());
        return Err(Failure::failed(ended));
    }
    Ok(Some(layout.join(data, &metadata)))
}

/// Parser of the bits of --prinfo.
fn prinfo(text: &str) -> Result<u8, String> {
    number::<u8>(text).ok().filter(|bits| *bits < 16).ok_or_else(|| "use 0 to 15".to_owned())
}
