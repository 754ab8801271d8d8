//! Writes a file to a namespace as a checkpoint, makes it durable, and restores it, checked:
//! `checkpoint nvmf-rdma://ADDRESS/NQN NSID FILE`. Overwrites what is there.
//!
//! A header with the length and a checksum is written last, so that a checkpoint that was cut short
//! is not taken for a whole one.

mod support;

use std::io::SeekFrom;

use nvmf_client::{Client, NamespaceCursor};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Position of the data, behind the header.
const DATA: u64 = 4096;

/// First bytes of a checkpoint.
const MAGIC: &[u8; 8] = b"CHECKPT1";

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let usage = "usage: checkpoint nvmf-rdma://ADDRESS/NQN NSID FILE";
    let [target, id, file] = support::arguments(usage)?;
    let client = Client::open(&target).await?;
    let namespace = client.namespace(id.parse()?).await?;
    let state = tokio::fs::read(&file).await?;
    write(namespace.cursor(), &state).await?;
    let restored = restore(namespace.cursor()).await?;
    if restored != state {
        return Err("what was restored is not what was written".into());
    }
    println!("{} bytes written, and read back the same", state.len());
    client.shutdown().await;
    Ok(())
}

async fn write(mut cursor: NamespaceCursor, state: &[u8]) -> support::Result<()> {
    // No header is valid while the data changes.
    cursor.write_all(&[0; 8]).await?;
    cursor.flush().await?;
    cursor.seek(SeekFrom::Start(DATA)).await?;
    cursor.write_all(state).await?;
    cursor.flush().await?;
    cursor.seek(SeekFrom::Start(0)).await?;
    cursor.write_all(MAGIC).await?;
    cursor.write_u64_le(state.len() as u64).await?;
    cursor.write_u32_le(crc32fast::hash(state)).await?;
    cursor.flush().await?;
    Ok(())
}

async fn restore(mut cursor: NamespaceCursor) -> support::Result<Vec<u8>> {
    let mut magic = [0; 8];
    cursor.read_exact(&mut magic).await?;
    if &magic != MAGIC {
        return Err("the namespace has no checkpoint".into());
    }
    let length = cursor.read_u64_le().await?;
    let checksum = cursor.read_u32_le().await?;
    cursor.seek(SeekFrom::Start(DATA)).await?;
    let mut state = Vec::new();
    cursor.take(length).read_to_end(&mut state).await?;
    match state.len() as u64 == length && crc32fast::hash(&state) == checksum {
        true => Ok(state),
        false => Err("the checkpoint is damaged".into()),
    }
}
