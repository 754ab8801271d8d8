//! Reads, writes, binds and invalidations, as the device below is asked for them.

use super::*;
use crate::{Access, BindInfo, RemoteAddress, RemoteKey, completion::Invalidated};

#[test]
fn a_chain_of_all_kinds_is_one_batch() {
    let (device, domain, mut pair) = connected();
    let bytes = bindable(&domain);
    let at = RemoteAddress { address: 0x1000, key: RemoteKey(5) };
    pair.rdma_write(buffer(&domain, 10), at, 1).expect("there is room");
    pair.rdma_write_inline(b"w", at).expect("there is room");
    pair.rdma_read((buffer(&domain, 11), buffer(&domain, 12)), at, 2).expect("there is room");
    let window = free_window(&domain, &mut pair);
    pair.bind(window, &whole(&bytes)).expect("there is room");
    pair.send_inline_with_invalidate(b"s", RemoteKey(6)).expect("there is room");
    pair.send_with_invalidate(buffer(&domain, 13), RemoteKey(7), 3).expect("there is room");
    pair.local_invalidate(window).expect("it is bound");
    device.log().lines.clear();
    pair.flush().expect("the device takes all");
    let chain = "send 10!>5@4096 'w'!>5@4096 23!<5@4096 bind 3! 's'?-6 13!-7 invalidate 3!";
    assert_eq!(device.calls(), [chain]);
    assert_eq!(pair.send_credits(), CAPABILITIES.max_send_wr - 7);
    let tags: Vec<_> = pair.close().iter().map(|returned| returned.tag).collect();
    assert_eq!(tags, [1, 2, 3], "what holds no buffer is not returned");
}

#[test]
fn either_dialect_gives_a_bound_window_back() {
    for make in [Invalidated::Certainly, Invalidated::Perhaps] {
        let (device, domain, mut pair) = connected();
        let bytes = bindable(&domain);
        let window = free_window(&domain, &mut pair);
        let key = pair.bind(window, &whole(&bytes)).expect("room");
        receive(&device, &domain, &mut pair, make(RemoteKey(key.0 + 1)));
        assert!(pair.is_bound(window), "another key was named");
        let refused = pair.bind(window, &whole(&bytes));
        assert!(matches!(refused, Err(Error::Misuse(_))), "it is bound: {refused:?}");
        let completion = receive(&device, &domain, &mut pair, make(key));
        assert_eq!(pair.invalidated(&completion, window), Some(key));
        assert_eq!(pair.invalidated(&completion, window + 1), Some(key));
        assert!(!pair.is_bound(window), "its key was named");
        let next = pair.bind(window, &whole(&bytes)).expect("it can be bound again");
        assert_eq!(next, RemoteKey(key.0 + 1));
    }
}

#[test]
fn a_key_that_was_never_bound_means_nothing() {
    let (device, domain, mut pair) = connected();
    for invalidated in [Invalidated::Perhaps(RemoteKey(0)), Invalidated::Perhaps(RemoteKey(9))] {
        let completion = receive(&device, &domain, &mut pair, invalidated);
        assert_eq!((completion.invalidated(), pair.invalidated(&completion, 0)), (None, None));
    }
    let certain = Invalidated::Certainly(RemoteKey(9));
    let completion = receive(&device, &domain, &mut pair, certain);
    let named = Some(RemoteKey(9));
    assert_eq!((completion.invalidated(), pair.invalidated(&completion, 0)), (named, named));
    assert!(!pair.is_bound(0));
    assert!(matches!(pair.local_invalidate(0), Err(Error::Misuse(_))));
}

#[test]
fn a_failed_invalidation_frees_no_window() {
    let (device, domain, mut pair) = connected();
    let bytes = bindable(&domain);
    let window = free_window(&domain, &mut pair);
    pair.bind(window, &whole(&bytes)).expect("room");
    pair.local_invalidate(window).expect("it is bound");
    pair.flush().expect("the device takes both");
    let token = *device.tokens().last().expect("two were posted");
    let failed = completion_of(token, Status::FLUSHED, NUMBER, 0);
    assert!(matches!(pair.complete(&failed), Ok(CompletedWork::Credit)));
    assert!(pair.is_bound(window));
}

#[test]
fn a_full_queue_changes_no_window() {
    let (_, domain, mut pair) = connected();
    let bytes = bindable(&domain);
    let [window, other] = [(); 2].map(|()| free_window(&domain, &mut pair));
    pair.bind(window, &whole(&bytes)).expect("room");
    while pair.send_credits() > 0 {
        pair.send_inline(b"x").expect("there is room");
    }
    assert!(matches!(pair.local_invalidate(window), Err(Error::QueueFull)));
    assert!(matches!(pair.local_invalidate(window), Err(Error::QueueFull)), "it is still bound");
    assert!(matches!(pair.bind(other, &whole(&bytes)), Err(Error::QueueFull)));
    assert!(!pair.is_bound(other));
}

#[test]
fn bound_windows_go_before_the_queue_pair_and_their_memory_after_it() {
    let (device, domain, mut pair) = connected();
    let bytes = bindable(&domain);
    let window = free_window(&domain, &mut pair);
    pair.bind(window, &whole(&bytes)).expect("room");
    device.log().lines.clear();
    let buffers = pair.close();
    assert!(buffers.is_empty());
    drop(bytes);
    assert_eq!(device.calls(), ["window freed", "queue pair destroyed", "64 bytes deregistered"]);
}

#[test]
fn a_window_keeps_the_memory_that_it_is_bound_to() {
    let (device, domain, mut pair) = connected();
    let bytes = bindable(&domain);
    let window = free_window(&domain, &mut pair);
    pair.bind(window, &whole(&bytes)).expect("room");
    device.log().lines.clear();
    drop(bytes);
    assert!(device.calls().is_empty());
    drop(pair);
    assert_eq!(device.calls(), ["window freed", "64 bytes deregistered", "queue pair destroyed"]);
}

/// A message that arrives, and what its completion says of itself.
fn receive(
    device: &Device,
    domain: &ProtectionDomain<Device>,
    pair: &mut QueuePair<Device>,
    invalidated: Invalidated,
) -> Completion {
    pair.post_receive(buffer(domain, 10), 1).expect("there is room");
    pair.flush().expect("the device takes it");
    let token = *device.tokens().last().expect("one was posted");
    let work = WorkCompletion::new(token, Status::SUCCESS, NUMBER, 4);
    let completion = WorkCompletion { invalidated, ..work }.into();
    pair.complete(&completion).expect("it is ours");
    completion
}

fn free_window(domain: &ProtectionDomain<Device>, pair: &mut QueuePair<Device>) -> usize {
    pair.add_window(domain.window().expect("a window")).expect("it is of the domain")
}

fn bindable(domain: &ProtectionDomain<Device>) -> Buffer {
    domain.allocate(64, Access::LOCAL_WRITE | Access::BIND).expect("memory")
}

fn whole(buffer: &Buffer) -> BindInfo<'_> {
    BindInfo { buffer, range: 0..buffer.len(), access: Access::REMOTE_READ }
}
