//! Reads and writes of the peer's memory, and chains of them.

use verbs::{Access, Buffer, CompletedWork, RemoteAddress, SgList, Status};

use crate::{
    memory,
    pair::{CAPABILITIES, End, Pair},
};

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_write_puts_bytes_and_a_read_gets_them() {
    let mut pair = Pair::connect(4721, CAPABILITIES);
    let (remote, at) = exposed(&pair.server, 8192);
    let mut head = memory(&pair.client, 3000);
    head.fill(1);
    let mut tail = memory(&pair.client, 1000);
    tail.fill(2);
    let queue_pair = &mut pair.client.queue_pair;
    queue_pair.rdma_write((head, tail), further(at, 96), 7).expect("there is room");
    queue_pair.rdma_write_inline(b"in line", at).expect("there is room");
    let (head, tail) = (memory(&pair.client, 96), memory(&pair.client, 4904));
    let queue_pair = &mut pair.client.queue_pair;
    queue_pair.rdma_read((head, tail), at, 8).expect("there is room");
    queue_pair.flush().expect("the device takes the chain");

    let [written, read] = pair.client.completions(2)[..] else { panic!("two were asked for") };
    assert_eq!((written.status(), read.status()), (Status::SUCCESS, Status::SUCCESS));
    let completed = pair.client.queue_pair.complete(&written).expect("it is ours");
    assert!(matches!(completed, CompletedWork::Send { tag: 7, .. }), "{completed:?}");
    let completed = pair.client.queue_pair.complete(&read).expect("it is ours");
    let CompletedWork::Send { tag: 8, buffers } = completed else { panic!("{completed:?}") };
    assert_eq!(pair.client.queue_pair.send_credits(), CAPABILITIES.max_send_wr);

    let mut expected = vec![0; 5000];
    expected[..7].copy_from_slice(b"in line");
    expected[96..3096].fill(1);
    expected[3096..4096].fill(2);
    assert_eq!(bytes(buffers), expected, "what was read");
    let mut there = vec![0; 5000];
    remote.copy_out(0, &mut there);
    assert!(there == expected, "what was written");
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_message_after_a_write_finds_it_done() {
    let mut pair = Pair::connect(4722, CAPABILITIES);
    let (remote, at) = exposed(&pair.server, 1 << 20);
    let receive = memory(&pair.server, 64);
    pair.server.queue_pair.post_receive(receive, 0).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    let mut large = memory(&pair.client, 1 << 20);
    large.fill(0x5A);
    pair.client.queue_pair.rdma_write(large, at, 1).expect("there is room");
    pair.client.queue_pair.send_inline(b"done").expect("there is room");
    pair.client.queue_pair.flush().expect("the device takes the chain");
    let [received] = pair.server.completions(1)[..] else { panic!("one was asked for") };
    assert_eq!(received.status(), Status::SUCCESS);
    let mut there = vec![0; 1 << 20];
    remote.copy_out(0, &mut there);
    assert!(there.iter().all(|&byte| byte == 0x5A));
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn credits_are_exact_whatever_is_posted() {
    let mut pair = Pair::connect(4723, CAPABILITIES);
    let (_remote, at) = exposed(&pair.server, 4096);
    let mut buffers = vec![memory(&pair.client, 64), memory(&pair.client, 64)];
    let mut seed = 12345_u32;
    for _ in 0..2000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let queue_pair = &mut pair.client.queue_pair;
        let room = queue_pair.send_credits();
        let posted = match (seed >> 24) % 4 {
            0 => buffers.pop().map(|buffer| match queue_pair.rdma_write(buffer, at, 0) {
                Ok(()) => true,
                Err(refused) => {
                    buffers.extend(refused.buffers);
                    false
                }
            }),
            1 => buffers.pop().map(|buffer| match queue_pair.rdma_read(buffer, at, 0) {
                Ok(()) => true,
                Err(refused) => {
                    buffers.extend(refused.buffers);
                    false
                }
            }),
            _ => Some(queue_pair.rdma_write_inline(b"12345678", at).is_ok()),
        };
        if let Some(posted) = posted {
            assert_eq!(posted, room > 0);
            assert_eq!(queue_pair.send_credits(), room - u32::from(posted));
        }
        // Without a buffer left, or without a credit, a completion is sure to come.
        if posted != Some(true) {
            take_back(&mut pair.client, &mut buffers);
        } else if seed & 0x0f00_0000 == 0 {
            queue_pair.flush().expect("the device takes the chain");
        }
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn what_the_peers_memory_does_not_allow_fails_with_the_buffers_back() {
    for (port, write) in [(4724, true), (4725, false)] {
        let mut pair = Pair::connect(port, CAPABILITIES);
        let access = if write { Access::REMOTE_READ } else { Access::REMOTE_WRITE };
        let remote = pair.server.domain.allocate(4096, access).expect("memory");
        let at = RemoteAddress { address: remote.address(), key: remote.remote_key() };
        let buffer = memory(&pair.client, 64);
        let queue_pair = &mut pair.client.queue_pair;
        if write {
            queue_pair.rdma_write(buffer, at, 1).expect("there is room");
        } else {
            queue_pair.rdma_read(buffer, at, 1).expect("there is room");
        }
        queue_pair.flush().expect("the device takes it");
        let [failed] = pair.client.completions(1)[..] else { panic!("one was asked for") };
        assert_eq!(failed.status(), Status::REMOTE_ACCESS);
        let completed = pair.client.queue_pair.complete(&failed).expect("it is ours");
        assert!(matches!(completed, CompletedWork::Send { tag: 1, .. }), "{completed:?}");
    }
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn a_read_needs_memory_that_can_be_written() {
    let mut pair = Pair::connect(4726, CAPABILITIES);
    let (_remote, at) = exposed(&pair.server, 64);
    let fixed = pair.client.domain.allocate(64, Access::NONE).expect("memory");
    let refused = pair.client.queue_pair.rdma_read(fixed, at, 0).expect_err("not writable");
    assert!(matches!(refused.error, verbs::Error::Misuse(_)), "{refused}");
    assert_eq!(refused.buffers.len(), 1);
}

/// Memory that the peer may read and write, and what to tell the peer of it.
fn exposed(end: &End, length: usize) -> (Buffer, RemoteAddress) {
    let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
    let buffer = end.domain.allocate(length, access).expect("memory can be registered");
    let at = RemoteAddress { address: buffer.address(), key: buffer.remote_key() };
    (buffer, at)
}

fn further(at: RemoteAddress, by: u64) -> RemoteAddress {
    RemoteAddress { address: at.address + by, ..at }
}

/// All bytes of all segments.
fn bytes(buffers: SgList) -> Vec<u8> {
    let mut all = Vec::new();
    for buffer in buffers {
        let start = all.len();
        all.resize(start + buffer.len(), 0);
        buffer.copy_out(0, &mut all[start..]);
    }
    all
}

/// Waits for one completion, and takes what else there is.
fn take_back(end: &mut End, buffers: &mut Vec<Buffer>) {
    end.queue_pair.flush().expect("the device takes the chain");
    let completion = end.completions(1)[0];
    let mut more = [verbs::Completion::default(); 32];
    let count = end.queue.poll(&mut more).expect("the queue has not overrun");
    for completion in std::iter::once(&completion).chain(&more[..count]) {
        assert_eq!(completion.status(), Status::SUCCESS);
        if let CompletedWork::Send { buffers: read, .. } =
            end.queue_pair.complete(completion).expect("it is ours")
        {
            buffers.extend(read);
        }
    }
}
