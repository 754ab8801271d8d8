//! Test of memory that is borrowed: no key writes it.

use verbs::{Access, RemoteAddress, Status};

use super::{Fabric, Pair};

#[test]
fn memory_registered_again_is_not_written_by_its_former_key() {
    let fabric = Fabric::auto(31);
    let mut pair = Pair::connect(&fabric);
    let client = &mut pair.client;
    let writable = client.domain.register(vec![7; 64], Access::REMOTE_WRITE).expect("memory");
    let former = RemoteAddress { address: writable.address(), key: writable.remote_key() };
    let memory: Vec<u8> = writable.deregister().expect("nothing uses it");
    let read_only = client.domain.register(memory, Access::NONE).expect("memory");
    assert_eq!(read_only.address(), former.address, "it is the same memory");
    client.queue_pair.set_message_buffer(read_only, 64).expect("it is for sending only");

    let bytes = pair.server.domain.allocate(64, Access::NONE).expect("memory");
    pair.server.queue_pair.rdma_write(bytes, former, 1).expect("there is room");
    pair.server.queue_pair.flush().expect("the device takes it");
    assert_eq!(pair.server.statuses(), [Status::REMOTE_ACCESS]);
    assert_eq!(pair.client.queue_pair.message_slot(0), Some([7; 64].as_slice()));
}
