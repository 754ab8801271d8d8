//! A cache of values of up to 4,000 bytes in slots of a namespace, by the hash of their keys:
//! `key_value_cache nvmf-rdma://ADDRESS/NQN NSID`. Overwrites what is there.
//!
//! A slot holds one value, and a value that comes to a slot replaces the one before it. Slots are
//! no multiples of blocks: the client reads and writes the blocks around them.

mod support;

use std::hash::{DefaultHasher, Hash, Hasher};

use nvmf_client::{ByteNamespace, Client};

/// Bytes of a slot: hash of the key, length, checksum, value.
const SLOT: usize = 4_016;

const HEADER: usize = 16;

struct Cache {
    namespace: ByteNamespace,
    slots: u64,
}

impl Cache {
    fn new(namespace: ByteNamespace) -> Self {
        let slots = namespace.size() / SLOT as u64;
        Self { namespace, slots }
    }

    fn place(&self, key: &str) -> (u64, u64) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        (hash, hash % self.slots * SLOT as u64)
    }

    async fn put(&self, key: &str, value: &[u8]) -> support::Result<()> {
        if value.len() + HEADER > SLOT {
            return Err(format!("a value of {} bytes is too large", value.len()).into());
        }
        let (hash, offset) = self.place(key);
        let mut slot = hash.to_le_bytes().to_vec();
        slot.extend(u32::try_from(value.len())?.to_le_bytes());
        slot.extend(crc32fast::hash(value).to_le_bytes());
        slot.extend(value);
        Ok(self.namespace.write_all_at(&slot, offset).await?)
    }

    async fn get(&self, key: &str) -> support::Result<Option<Vec<u8>>> {
        let (hash, offset) = self.place(key);
        let slot = self.namespace.read_bytes(offset, SLOT).await?;
        let (header, rest) = slot.split_at(HEADER);
        let length = u32::from_le_bytes(header[8..12].try_into()?) as usize;
        let value = rest.get(..length).unwrap_or_default();
        let is_whole = crc32fast::hash(value).to_le_bytes() == header[12..];
        Ok((header[..8] == hash.to_le_bytes() && is_whole).then(|| value.to_vec()))
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    support::exit(run().await)
}

async fn run() -> support::Result<()> {
    let [target, id] = support::arguments("usage: key_value_cache nvmf-rdma://ADDRESS/NQN NSID")?;
    let client = Client::open(&target).await?;
    let cache = Cache::new(client.namespace(id.parse()?).await?);
    let value_of = |index: u8| vec![index; usize::from(index) * 19];
    for index in 0..200 {
        cache.put(&format!("key {index}"), &value_of(index)).await?;
    }
    let (mut found, mut replaced) = (0, 0);
    for index in 0..200 {
        match cache.get(&format!("key {index}")).await? {
            Some(value) if value == value_of(index) => found += 1,
            Some(_) => return Err(format!("key {index} has another value").into()),
            None => replaced += 1,
        }
    }
    println!("200 values put, {found} found, {replaced} replaced by others");
    println!("{:?}", cache.namespace.counters());
    client.shutdown().await;
    Ok(())
}
