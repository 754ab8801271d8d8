//! Registered memory: where it comes from, who has it, and when it is let go. Each question is
//! asked of the fabric and, in the bed, of rxe.

// bed:

use std::{fs, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Duration};

use rdma_fabric::{Fabric, Host};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use verbs::{
    Access, Buffer, ConnectionEvent, DeregisterError, Endpoint, Error, PageSize, Placement,
    PoolOptions, ProtectionDomain, Provider, RdmaCore,
};

/// A domain, and what it must outlive.
struct Place<P: Provider> {
    domain: ProtectionDomain<P>,
    _endpoint: Endpoint<P>,
}

impl<P: Provider> Place<P> {
    fn new(provider: Arc<P>, address: SocketAddr) -> Self {
        let mut endpoint = Endpoint::open_with(provider).expect("an endpoint");
        endpoint.resolve_address(None, address, Duration::from_secs(3)).expect("it begins");
        while !matches!(endpoint.next_event(), Ok(Some(ConnectionEvent::AddressResolved))) {
            let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
            let mut files = [PollFd::from_borrowed_fd(endpoint.as_fd(), PollFlags::IN)];
            assert_ne!(poll(&mut files, Some(&limit)), Ok(0), "the address is not resolved");
        }
        let domain = endpoint.domain().expect("a domain");
        Self { domain, _endpoint: endpoint }
    }
}

fn on_fabric() -> (Fabric, Place<Host>) {
    let fabric = Fabric::auto(1);
    let host = fabric.host("host", [10, 0, 0, 1].into());
    fabric.host("peer", [10, 0, 0, 2].into());
    let place = Place::new(host, ([10, 0, 0, 2], 4420).into());
    (fabric, place)
}

fn on_rxe() -> Place<RdmaCore> {
    let address = std::env::var("RDMA_TEST_ADDRESS").expect("run inside the test bed");
    Place::new(
        Arc::new(RdmaCore::new()),
        SocketAddr::new(address.parse().expect("an address"), 4420),
    )
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_out(0, &mut bytes);
    bytes
}

#[test]
fn memory_of_the_caller_goes_in_and_comes_out() {
    go_in_and_come_out(&on_fabric().1);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn memory_of_the_caller_goes_in_and_comes_out_on_rxe() {
    go_in_and_come_out(&on_rxe());
}

fn go_in_and_come_out<P: Provider>(place: &Place<P>) {
    let mut vector = Vec::with_capacity(100_000);
    vector.extend(tests::noise(70_001, 1));
    let (start, expected) = (vector.as_ptr().addr() as u64, vector.clone());
    let mut buffer = place.domain.register(vector, Access::LOCAL_WRITE).expect("registered");
    assert_eq!((buffer.address(), buffer.len()), (start, 70_001), "nothing was copied");
    assert!(bytes(&buffer) == expected);
    buffer.copy_in(70_000, b"!");

    let tail = buffer.split_off(100);
    let Err(DeregisterError::InUse(mut buffer)) = buffer.deregister::<Vec<u8>>() else {
        panic!("a part of it is elsewhere");
    };
    buffer.unsplit(tail).expect("it follows");
    let vector: Vec<u8> = buffer.deregister().expect("it is whole");
    assert_eq!((vector.len(), vector.capacity()), (70_001, 100_000));
    assert_eq!(vector[70_000], b'!');

    let boxed = expected.into_boxed_slice();
    let buffer = place.domain.register(boxed, Access::NONE).expect("registered");
    let boxed: Box<[u8]> = buffer.deregister().expect("it is whole");
    assert_eq!(boxed.len(), 70_001);

    let refused = place.domain.register(Vec::new(), Access::NONE).expect_err("nothing to register");
    assert!(matches!(refused.error, Error::Misuse(_)), "{refused}");
    let own = place.domain.allocate(64, Access::NONE).expect("memory");
    assert!(own.deregister::<Vec<u8>>().is_err(), "it was never the caller's");
}

#[test]
fn a_pool_gives_and_takes() {
    give_and_take(&on_fabric().1);
}

#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_pool_gives_and_takes_on_rxe() {
    give_and_take(&on_rxe());
}

fn give_and_take<P: Provider>(place: &Place<P>) {
    let access = Access::LOCAL_WRITE;
    for (pages, node) in
        [(PageSize::Base, None), (PageSize::Base, Some(0)), (PageSize::TwoMebibytes, Some(0))]
    {
        let options =
            PoolOptions { count: 5, size: 3000, access, pages, node, ..PoolOptions::default() };
        let mut pool = place.domain.pool(options).expect("memory");
        let report = pool.report().clone();
        println!("{pages:?}, node {node:?}: {report}");
        assert_eq!(node.is_none(), report.placement == Placement::Anywhere);
        let had = report.page_bytes == pages.bytes();
        assert_eq!(had, report.pages_refused.is_none(), "a refusal is in the report: {report}");
        assert_eq!(report.bytes, 15_000usize.next_multiple_of(report.page_bytes));
        let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.available(), pool.capacity()), (5, 0, 5));
        for (number, buffer) in (0u8..).zip(&mut taken) {
            assert!(bytes(buffer) == [0; 3000], "it begins as zeroes");
            buffer.fill(number);
        }
        assert!(taken.is_sorted_by_key(Buffer::address), "the first is taken first");
        for (number, buffer) in (0u8..).zip(&taken) {
            assert!(bytes(buffer) == [number; 3000], "buffers overlap");
        }
        let part = taken[0].split_off(1000);
        let part = pool.give(part).expect_err("a part is no buffer of the pool");
        taken[0].unsplit(part).expect("it follows");
        let foreign = place.domain.allocate(3000, access).expect("memory");
        pool.give(foreign).expect_err("it is of no pool");
        for buffer in taken {
            pool.give(buffer).expect("it is whole");
        }
        assert_eq!(pool.available(), 5);
    }
    let nothing = PoolOptions { size: 1, ..PoolOptions::default() };
    assert!(matches!(place.domain.pool(nothing), Err(Error::Misuse(_))));
    let much = PoolOptions { count: usize::MAX, size: 2, ..nothing };
    assert!(matches!(place.domain.pool(much), Err(Error::Allocate { .. })));
}

#[test]
fn a_dma_buf_is_refused_by_the_fabric() {
    be_refused(&on_fabric().1);
}

/// rxe's plug-in knows no dma-bufs; a device that does is not asked here.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn a_dma_buf_is_refused_by_rxe() {
    be_refused(&on_rxe());
}

fn be_refused<P: Provider>(place: &Place<P>) {
    assert!(!place.domain.takes_dma_buf().expect("it can be asked"));
    let file = fs::File::open("/dev/zero").expect("it is there");
    let refused = place.domain.register_dma_buf(file.into(), 0..4096, Access::LOCAL_WRITE);
    let error = refused.expect_err("it is not supported");
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    let file = fs::File::open("/dev/zero").expect("it is there");
    let reversed = std::ops::Range { start: 2, end: 1 };
    let refused = place.domain.register_dma_buf(file.into(), reversed, Access::LOCAL_WRITE);
    assert!(matches!(refused, Err(Error::Misuse(_))));
}

/// Root is above the limit, so this takes away its power to lock memory without one.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn the_limit_on_locked_memory_is_named_with_what_there_is() {
    let place = on_rxe();
    let _kept = place.domain.allocate(1 << 20, Access::NONE).expect("root has no limit");
    let before = getrlimit(Resource::Memlock);
    let limit = Rlimit { current: Some(2 << 20), maximum: before.maximum };
    setrlimit(Resource::Memlock, limit).expect("lower is allowed");
    let refused = std::thread::scope(|scope| {
        let attempt = scope.spawn(|| {
            // Of this thread alone, which is why it is one.
            let mut sets = rustix::thread::capabilities(None).expect("known");
            sets.effective.remove(rustix::thread::CapabilitySet::IPC_LOCK);
            rustix::thread::set_capabilities(None, sets).expect("less is allowed");
            place.domain.allocate(8 << 20, Access::NONE)
        });
        attempt.join().expect("no panic")
    });
    setrlimit(Resource::Memlock, before).expect("as it was");
    match refused.expect_err("beyond the limit") {
        error @ Error::LockedMemoryLimit { length, pinned, limit, .. } => {
            println!("{error}");
            assert_eq!((length, limit), (8 << 20, 2 << 20));
            assert!(pinned >= 1 << 20, "{pinned} bytes are registered");
        }
        other => panic!("{other}"),
    }
}
