//! Blocks of a transfer in buffers, with or without metadata.

use rdma_host::{
    Buffer, ProtectionAction, ProtectionOptions, TransferError,
    wire::{NamespaceInfo, ProtectionFormat},
};

use crate::io_namespace::IoNamespace;

/// Blocks of a transfer in buffers: data, and metadata behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLayout {
    /// Bytes of data of a block.
    data: usize,
    /// Bytes of metadata of a block.
    metadata: usize,
    /// Options of transfers with metadata; without, the namespace has none, or the controller has
    /// all of it to itself.
    options: Option<ProtectionOptions>,
    /// Block of the reference tag, if the options have one, and its format.
    reference: Option<(u64, ProtectionFormat)>,
}

impl BlockLayout {
    /// Blocks without metadata in the buffers.
    pub(crate) fn plain(info: &NamespaceInfo) -> Self {
        Self { data: info.block_size as usize, metadata: 0, options: None, reference: None }
    }

    /// Blocks of a namespace from `lba` on with these options.
    pub(crate) fn new(info: &NamespaceInfo, lba: u64, options: ProtectionOptions) -> Self {
        let is_stripped =
            info.metadata.is_protection_only() && options.action == ProtectionAction::Controller;
        let metadata = if is_stripped { 0 } else { info.metadata.bytes.into() };
        let reference = info.metadata.protection.map(|format| (lba, format));
        Self { metadata, options: Some(options), reference, ..Self::plain(info) }
    }

    /// Bytes in a buffer of blocks with this many bytes of data.
    pub(crate) fn buffer_bytes(&self, data: usize) -> usize {
        data / self.data * (self.data + self.metadata)
    }

    /// True if the buffers have metadata.
    pub(crate) fn has_metadata(&self) -> bool {
        self.metadata > 0
    }

    /// Side that makes and checks the protection information, if buffers may have metadata.
    pub(crate) fn action(&self) -> Option<ProtectionAction> {
        self.options.map(|options| options.action)
    }

    /// Bytes of metadata of blocks with this many bytes of data.
    pub(crate) fn metadata_of(&self, data: u64) -> u64 {
        data / self.data as u64 * self.metadata as u64
    }

    /// Bytes of data in a buffer of this many bytes.
    pub(crate) fn data_bytes(&self, buffer: usize) -> usize {
        buffer / (self.data + self.metadata) * self.data
    }

    /// Content of a buffer with this data and this metadata.
    pub(crate) fn join(&self, data: &[u8], metadata: &[u8]) -> Vec<u8> {
        let blocks = data.chunks(self.data).zip(metadata.chunks(self.metadata));
        blocks.flat_map(|(data, metadata)| [data, metadata].concat()).collect()
    }

    /// Data and metadata in the content of a buffer; `None` if it has the data alone.
    pub(crate) fn split(&self, buffer: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.metadata == 0 {
            return None;
        }
        let blocks = buffer.chunks_exact(self.data + self.metadata);
        let (data, metadata): (Vec<_>, Vec<_>) =
            blocks.map(|block| block.split_at(self.data)).unzip();
        Some((data.concat(), metadata.concat()))
    }

    /// Options of a transfer from `lba` on, whose first block has a reference tag of its own.
    fn options_at(&self, lba: u64) -> Option<ProtectionOptions> {
        let options = self.options?;
        let reference_tag = match (options.reference_tag, self.reference) {
            (Some(tag), Some((first, format))) => {
                Some(format.advance(tag, lba.saturating_sub(first)))
            }
            (tag, _) => tag,
        };
        Some(ProtectionOptions { reference_tag, ..options })
    }

    pub(crate) async fn read(
        self,
        namespace: &IoNamespace,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        match (namespace, self.options_at(lba)) {
            (IoNamespace::Controller(namespace), Some(options)) => {
                namespace.read_extended(lba, buffer, &options).await
            }
            _ => namespace.read(lba, buffer).await,
        }
    }

    pub(crate) async fn write(
        self,
        namespace: &IoNamespace,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        match (namespace, self.options_at(lba)) {
            (IoNamespace::Controller(namespace), Some(options)) => {
                namespace.write_extended(lba, buffer, &options).await
            }
            _ => namespace.write(lba, buffer).await,
        }
    }

    pub(crate) async fn compare(
        self,
        namespace: &IoNamespace,
        lba: u64,
        buffer: Buffer,
    ) -> Result<Buffer, TransferError> {
        match (namespace, self.options_at(lba)) {
            (IoNamespace::Controller(namespace), Some(options)) => {
                namespace.compare_extended(lba, buffer, &options).await
            }
            _ => namespace.compare(lba, buffer).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_put_behind_each_block_and_taken_from_there() {
        let layout = BlockLayout { data: 2, metadata: 1, options: None, reference: None };
        let joined = layout.join(&[1, 2, 3, 4], &[9, 8]);
        assert_eq!(joined, [1, 2, 9, 3, 4, 8]);
        assert_eq!(layout.split(&joined), Some((vec![1, 2, 3, 4], vec![9, 8])));
        assert_eq!((layout.buffer_bytes(4), layout.data_bytes(6)), (6, 4));
        assert_eq!(layout.metadata_of(4), 2);
        let plain = BlockLayout { metadata: 0, ..layout };
        assert_eq!(plain.split(&[1, 2]), None);
        assert_eq!((plain.buffer_bytes(4), plain.data_bytes(4)), (4, 4));
    }
}
