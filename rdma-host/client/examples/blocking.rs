//! Writes and reads bytes without a runtime: `blocking nvmf-rdma://ADDRESS/NQN NSID`. Overwrites
//! the bytes from 1,000 on.

mod support;

use std::io::{Read, Seek, SeekFrom, Write};

use nvmf_client::blocking::Client;

fn main() -> std::process::ExitCode {
    support::exit(run())
}

fn run() -> support::Result<()> {
    let [target, id] = support::arguments("usage: blocking nvmf-rdma://ADDRESS/NQN NSID")?;
    let client = Client::open(&target)?;
    let namespace = client.namespace(id.parse()?)?;
    let mut cursor = namespace.cursor();
    cursor.seek(SeekFrom::Start(1000))?;
    cursor.write_all(b"hello")?;
    cursor.flush()?;
    cursor.seek(SeekFrom::Start(1000))?;
    let mut word = [0; 5];
    cursor.read_exact(&mut word)?;
    println!("{}", String::from_utf8_lossy(&word));
    client.shutdown();
    Ok(())
}
