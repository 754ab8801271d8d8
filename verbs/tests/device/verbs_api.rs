//! Work by both sets of calls of a device's plug-in.

use verbs::{
    Access, BindInfo, Buffer, CompletedWork, QueuePairCapabilities, RemoteAddress, RemoteKey,
    Status, VerbsApi,
};

use crate::{
    memory,
    pair::{self, CAPABILITIES, End, Pair},
};

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn all_work_is_done_by_the_classic_calls() {
    do_all_work(4781, VerbsApi::Legacy);
}

#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn all_work_is_done_by_the_extended_calls() {
    do_all_work(4782, VerbsApi::Extended);
}

/// rdma-core before 64 adds lists of segments up wrongly for rxe.
#[test]
#[ignore = "needs an RDMA device: run in the test bed"]
fn sends_of_several_buffers_are_posted_by_the_classic_calls() {
    pair::choose(VerbsApi::Extended);
    let pair = Pair::connect(4783, CAPABILITIES);
    assert_eq!(pair.client.queue.api(), VerbsApi::Extended);
    assert_eq!(pair.client.queue_pair.api(), VerbsApi::Legacy);
}

/// One chain with a request of each kind, and what comes of it.
fn do_all_work(port: u16, api: VerbsApi) {
    pair::choose(api);
    let Pair { mut client, mut server } =
        Pair::connect(port, QueuePairCapabilities { max_send_sge: 1, ..CAPABILITIES });
    assert_eq!(client.queue_pair.api(), api);
    assert_eq!(client.queue.api(), api);

    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
    let exposed = server.domain.allocate(4096, access).expect("memory");
    let at = RemoteAddress { address: exposed.address(), key: exposed.remote_key() };
    // The peer's window, whose key the last message of the chain invalidates.
    let (bindable, key) = bind(&mut server, Access::REMOTE_WRITE);
    for tag in 0..4 {
        let buffer = memory(&server, 64);
        server.queue_pair.post_receive(buffer, tag).expect("there is room");
    }
    server.queue_pair.flush().expect("the device takes them");

    // A window of this side, which the peer does not use.
    let (_own, _) = bind(&mut client, Access::REMOTE_READ);

    let mut written = memory(&client, 64);
    written.fill(7);
    let (message, read) = (memory(&client, 32), memory(&client, 96));
    let pair = &mut client.queue_pair;
    pair.rdma_write(written, at, 10).expect("there is room");
    let behind = RemoteAddress { address: at.address + 64, ..at };
    pair.rdma_write_inline(b"in line", behind).expect("there is room");
    let window = RemoteAddress { address: bindable.address(), key };
    pair.rdma_write_inline(b"window", window).expect("there is room");
    pair.rdma_read(read, at, 11).expect("there is room");
    pair.send_inline(b"message").expect("there is room");
    pair.send_inline(b"").expect("there is room");
    pair.send(message, 12).expect("there is room");
    pair.local_invalidate(0).expect("it is bound");
    pair.send_inline_with_invalidate(b"bye", key).expect("there is room");
    pair.flush().expect("the device takes the chain");

    expect_messages(&mut server, &[7, 0, 32, 3]);
    let mut tags = Vec::new();
    while tags != [10, 11, 12] || client.queue_pair.is_bound(0) {
        let [completion] = client.completions(1)[..] else { panic!("one was asked for") };
        assert_eq!(completion.status(), Status::SUCCESS);
        let completed = client.queue_pair.complete(&completion).expect("it is ours");
        if let CompletedWork::Send { tag, buffers } = completed {
            tags.push(tag);
            if tag == 11 {
                let mut bytes = [0; 96];
                buffers.iter().next().expect("it was of one").copy_out(0, &mut bytes);
                assert_eq!((&bytes[..64], &bytes[64..71]), (&[7; 64][..], &b"in line"[..]));
            }
        }
    }
    assert!(!server.queue_pair.is_bound(0), "the last message invalidated it");
    let mut bytes = [0; 6];
    bindable.copy_out(0, &mut bytes);
    assert_eq!(&bytes, b"window");
}

/// Posts the bind of the end's only window over 512 bytes; returns them with its key.
fn bind(end: &mut End, access: Access) -> (Buffer, RemoteKey) {
    let buffer = end.domain.allocate(512, Access::LOCAL_WRITE | Access::BIND).expect("memory");
    let window = end.domain.window().expect("a window");
    let window = end.queue_pair.add_window(window).expect("it is of the domain");
    let to = BindInfo { buffer: &buffer, range: 0..512, access };
    let key = end.queue_pair.bind(window, &to).expect("there is room");
    (buffer, key)
}

/// Receives messages of these lengths, in order.
fn expect_messages(server: &mut End, lengths: &[u32]) {
    let mut received = Vec::new();
    while received.len() < lengths.len() {
        let [completion] = server.completions(1)[..] else { panic!("one was asked for") };
        assert_eq!(completion.status(), Status::SUCCESS);
        let completed = server.queue_pair.complete(&completion).expect("it is ours");
        if let CompletedWork::Receive { length, .. } = completed {
            received.push(length);
        }
    }
    assert_eq!(received, lengths);
}
