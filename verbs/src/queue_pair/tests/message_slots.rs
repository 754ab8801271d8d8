//! Messages that are kept in a buffer, and batches that fill up.

use super::*;
use crate::{Access, BindInfo, SENDS_QUEUED_MAX};

/// A queue pair that keeps four messages of eight bytes.
fn keeping(inline: u32) -> (Device, ProtectionDomain<Device>, QueuePair<Device>) {
    let (device, domain, mut pair) =
        connected_with(QueuePairCapabilities { max_inline_data: inline, ..CAPABILITIES });
    let slots = domain.allocate(32, Access::NONE).expect("memory");
    pair.set_message_buffer(slots, 8).expect("nothing was sent");
    device.log().lines.clear();
    (device, domain, pair)
}

#[test]
fn a_kept_message_is_sent_from_its_row_and_can_be_read_again() {
    let (device, domain, mut pair) = keeping(8);
    pair.send_message(2, b"inlined.").expect("there is room");
    pair.send_message_signaled(0, b"signaled").expect("there is room");
    pair.send_message_with_data(3, b"gathered", buffer(&domain, 10)).expect("there is room");
    assert_eq!(pair.sends_with_payload(), 2);
    pair.flush().expect("the device takes all");
    assert_eq!(device.calls(), ["send 'inlined.'? 'signaled'! 18!"]);
    assert_eq!(pair.message_slot(2), Some(b"inlined.".as_slice()));
    assert_eq!(pair.message_slot(3), Some(b"gathered".as_slice()));
    assert_eq!((pair.message_slot(4), pair.message_slot(usize::MAX)), (None, None));
    let completion = |token, status| completion_of(token, status, NUMBER, 0);
    let [quiet, signaled, gathered] = device.tokens()[..] else { panic!("three were sent") };
    for token in [quiet, gathered + 1] {
        assert!(pair.complete_message(&completion(token, Status::SUCCESS)).is_none());
    }
    assert!(pair.complete_message(&completion(signaled, Status::FLUSHED)).is_none());
    assert_eq!(pair.sends_with_payload(), 2);
    assert!(matches!(
        pair.complete_message(&completion(signaled, Status::SUCCESS)),
        Some((0, None)),
    ));
    assert!(pair.complete_message(&completion(signaled, Status::SUCCESS)).is_none(), "once");
    let completed = pair.complete_message(&completion(gathered, Status::SUCCESS));
    assert_eq!(
        completed.map(|(slot, data)| (slot, data.map(|data| data.len()))),
        Some((3, Some(10)))
    );
    assert_eq!(pair.sends_with_payload(), 0);
}

#[test]
fn a_message_with_a_bind_is_queued_with_it_or_not_at_all() {
    for inline in [8, 0] {
        let (device, domain, mut pair) = keeping(inline);
        let bytes = domain.allocate(64, Access::LOCAL_WRITE | Access::BIND).expect("memory");
        let to = BindInfo { buffer: &bytes, range: 0..64, access: Access::REMOTE_WRITE };
        let too_wide = BindInfo { range: 0..65, ..to.clone() };
        let refused = pair.send_message_with_bind(0, &to, |_| b"message.");
        assert!(matches!(refused, Err(Error::Misuse(_))), "there is no window: {refused:?}");
        for _ in 0..5 {
            pair.add_window(domain.window().expect("a window")).expect("it is of the domain");
        }
        for (slot, to, message) in
            [(0, &too_wide, b"message.".as_slice()), (4, &to, b"no slot"), (0, &to, b"too long!")]
        {
            let refused = pair.send_message_with_bind(slot, to, |_| message);
            assert!(matches!(refused, Err(Error::Misuse(_))), "{refused:?}");
            assert!(!pair.is_bound(slot));
        }
        assert_eq!(pair.send_credits(), CAPABILITIES.max_send_wr);
        device.log().lines.clear();
        let mut told = None;
        let key = pair.send_message_with_bind(0, &to, |key| {
            told = Some(key);
            b"message."
        });
        assert_eq!(Some(key.expect("there is room")), told);
        assert!(pair.is_bound(0));
        while pair.send_credits() > 1 {
            pair.send_message_signaled(1, b"other").expect("there is room");
        }
        let refused = pair.send_message_with_bind(2, &to, |_| b"message.");
        assert!(matches!(refused, Err(Error::QueueFull)), "for one is room: {refused:?}");
        assert!(!pair.is_bound(2) && pair.send_credits() == 1);
        pair.flush().expect("the device takes all");
        let calls = device.calls().concat();
        let first = if inline > 0 { "send bind 3? 'message.'! " } else { "send bind 3? 8! " };
        assert!(calls.starts_with(first), "{calls}");
        let token = device.tokens()[1];
        let completion = completion_of(token, Status::SUCCESS, NUMBER, 0);
        assert!(matches!(pair.complete_message(&completion), Some((0, None))));
    }
}

#[test]
fn without_inline_sends_a_message_is_sent_from_memory() {
    let (device, domain, mut pair) = keeping(0);
    assert!(matches!(pair.send_message(0, b"quietly."), Err(Error::Misuse(_))));
    pair.send_message_signaled(1, b"alone").expect("there is room");
    pair.send_message_with_data(2, b"together", buffer(&domain, 4)).expect("there is room");
    pair.flush().expect("the device takes all");
    assert_eq!(device.calls(), ["send 5! 12!"]);
    let failed = completion_of(device.tokens()[0], Status::FLUSHED, NUMBER, 0);
    assert!(matches!(pair.complete(&failed), Ok(CompletedWork::Send { tag: 1, .. })));
    let tags: Vec<_> = pair.close().iter().map(|returned| returned.tag).collect();
    assert_eq!(tags, [2]);
}

#[test]
fn what_does_not_fit_a_row_is_refused_and_nothing_is_lost() {
    let (_, domain, mut pair) = keeping(8);
    assert!(matches!(pair.send_message(4, b"no slot"), Err(Error::Misuse(_))));
    assert!(matches!(pair.send_message(0, b"too long!"), Err(Error::Misuse(_))));
    assert!(matches!(pair.send_inline(b"copied"), Err(Error::Misuse(_))));
    let refused = pair.send_message_with_data(4, b"message.", buffer(&domain, 2));
    assert_eq!(refused.expect_err("no slot").buffer.len(), 2);
    let stranger = open(&Device::new()).domain().expect("another").allocate(3, Access::NONE);
    let refused = pair.send_message_with_data(0, b"message.", stranger.expect("memory"));
    assert_eq!(refused.expect_err("a strange buffer").buffer.len(), 3);
    assert_eq!(pair.send_credits(), CAPABILITIES.max_send_wr);
    for _ in 0..CAPABILITIES.max_send_wr {
        pair.send_message_signaled(0, b"message.").expect("there is room");
    }
    assert!(matches!(pair.send_message_signaled(0, b"message."), Err(Error::QueueFull)));
    assert!(matches!(pair.send_message(0, b"message."), Err(Error::QueueFull)));
    let refused = pair.send_message_with_data(0, b"message.", buffer(&domain, 3));
    assert_eq!(refused.expect_err("the queue is full").buffer.len(), 3);
}

#[test]
fn only_memory_that_no_device_writes_keeps_messages() {
    let (_, domain, mut pair) = connected();
    for access in [Access::LOCAL_WRITE, Access::REMOTE_WRITE, Access::LOCAL_WRITE | Access::BIND] {
        let writable = domain.allocate(32, access).expect("memory");
        assert!(matches!(pair.set_message_buffer(writable, 8), Err(Error::Misuse(_))));
    }
    for size in [0, 5, 64] {
        let slots = domain.allocate(32, Access::NONE).expect("memory");
        assert!(matches!(pair.set_message_buffer(slots, size), Err(Error::Misuse(_))), "{size}");
    }
    pair.send_inline(b"first").expect("there is room");
    let slots = domain.allocate(32, Access::NONE).expect("memory");
    assert!(matches!(pair.set_message_buffer(slots, 8), Err(Error::Misuse(_))));
}

#[test]
fn one_send_more_than_may_wait_hands_the_others_over() {
    let many = SENDS_QUEUED_MAX + 1;
    let (device, domain, mut pair) = connected_with(QueuePairCapabilities {
        max_send_wr: 2 * many,
        max_send_sge: 4,
        ..CAPABILITIES
    });
    pair.post_receive(buffer(&domain, 8), 0).expect("there is room");
    device.log().lines.clear();
    for number in 0..many {
        pair.send_inline(format!("{number}").as_bytes()).expect("there is room");
    }
    let calls = device.calls();
    assert_eq!(calls.len(), 2, "the receive goes first, since an answer may need it");
    assert_eq!(calls[0], "receive 8");
    assert!(calls[1].starts_with("send '0'? '1'?"), "{}", calls[1]);
    pair.flush().expect("the device takes all");
    assert_eq!(device.calls(), ["send '64'?"]);
}

#[test]
fn room_for_several_is_made_at_once() {
    let (device, _, mut pair) =
        connected_with(QueuePairCapabilities { max_send_wr: 2 * SENDS_QUEUED_MAX, ..CAPABILITIES });
    for _ in 0..SENDS_QUEUED_MAX - 1 {
        pair.send_inline(b"one").expect("there is room");
    }
    pair.reserve_sends(1).expect("there is room for one");
    assert!(device.calls().iter().all(|call| !call.starts_with("send")));
    device.log().take_at_most = Some(0);
    assert!(matches!(pair.reserve_sends(2), Err(Error::PostSend(_))));
    pair.send_inline(b"two").expect("there is room for one");
    assert!(matches!(pair.send_inline(b"three"), Err(Error::PostSend(_))), "and for no more");
    device.log().take_at_most = None;
    pair.reserve_sends(2).expect("the device takes all");
    assert_eq!(pair.send_credits(), SENDS_QUEUED_MAX, "what was refused took no slot");
}

#[test]
fn payloads_move_with_the_sends_that_were_not_taken() {
    let (device, domain, mut pair) = connected();
    pair.send_inline(b"one").expect("there is room");
    pair.send(buffer(&domain, 20), 2).expect("there is room");
    pair.send_inline(b"three").expect("there is room");
    pair.send((buffer(&domain, 4), buffer(&domain, 36)), 4).expect("there is room");
    device.log().take_at_most = Some(1);
    pair.flush().expect_err("one of four");
    pair.send_inline(b"five").expect("there is room");
    pair.send(buffer(&domain, 60), 6).expect("there is room");
    device.log().take_at_most = None;
    device.log().lines.clear();
    pair.flush().expect("the device takes the rest");
    assert_eq!(device.calls(), ["send 20! 'three'? 40! 'five'? 60!"]);
}
