//! Bytes of NVMe over Fabrics namespaces over RDMA, for programs that store and load data: reads
//! and writes at any offset, the traits of tokio for bytes in a row, and blocking forms of both.
//!
//! It is a layer above `rdma_host`, whose namespaces transfer whole blocks of registered memory
//! without a copy; here data is copied once, through registered buffers.
//!
//! The package `nvmf-client` has the library `nvmf_client`. It needs the development files of
//! libibverbs and librdmacm (Debian: `libibverbs-dev`, `librdmacm-dev`).
//!
//! ```no_run
//! use nvmf_client::Client;
//! use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
//!
//! # async fn first() -> Result<(), Box<dyn std::error::Error>> {
//! let target = "nvmf-rdma://192.0.2.7,192.0.2.8/nqn.2014-08.org.example:disk";
//! let client = Client::open(target).await?;
//! let namespace = client.namespace(1).await?;
//!
//! // At any offset, from any number of tasks.
//! namespace.write_all_at(b"hello", 1021).await?;
//! let bytes = namespace.read_bytes(1021, 5).await?;
//!
//! // In a row, as a file.
//! let mut cursor = namespace.cursor();
//! cursor.seek(std::io::SeekFrom::Start(4096)).await?;
//! cursor.write_all(&bytes).await?;
//! cursor.flush().await?;
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Without a runtime:
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! # fn second() -> std::io::Result<()> {
//! let target = "nvmf-rdma://192.0.2.7/nqn.2014-08.org.example:disk";
//! let client = nvmf_client::blocking::Client::open(target)?;
//! let mut cursor = client.namespace(1)?.cursor();
//! cursor.write_all(b"hello")?;
//! cursor.flush()?;
//! client.shutdown();
//! # Ok(())
//! # }
//! ```
//!
//! Examples that run: `checkpoint` (writes and restores files, checked), `parallel_read` (reads a
//! namespace with many tasks), `key_value_cache` (values of any size in slots of a namespace), and
//! `blocking`. For a loop of one's own around a polled queue see the example `polled` of
//! `rdma_host`.
//!
//! # Limits
//!
//! - A write of a part of a block is a read and a write of the block. It is atomic only with
//!   respect to other writes through clones of the same [`ByteNamespace`].
//! - Data is copied; [`ByteCounters`] says how much. For large transfers of memory that lives long,
//!   register it ([`rdma_host::Subsystem::register`]) and use [`ByteNamespace::blocks`].
//! - Writes are durable after [`ByteNamespace::flush`], or `flush` of a cursor.
#![forbid(unsafe_code)]

mod block_locks;
pub mod blocking;
mod bounce_buffers;
mod byte_namespace;
mod client;
mod error;

pub use byte_namespace::{ByteCounters, ByteNamespace, ByteOptions, NamespaceCursor};
pub use client::Client;
pub use error::{ByteTransferError, OpenError};
