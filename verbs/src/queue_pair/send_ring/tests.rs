use super::*;

#[test]
fn one_inline_send_in_a_period_is_signaled() {
    let mut ring = SendRing::<()>::new(16, 0);
    let signaled: Vec<_> =
        (0..16).map(|_| ring.take_inline().expect("there is room").signaled).collect();
    let expected: Vec<_> = (1..=16).map(|number| number % 4 == 0).collect();
    assert_eq!(signaled, expected);
    assert_eq!(ring.take_inline(), None);
}

#[test]
fn a_full_ring_always_has_a_completion_to_come() {
    for length in (1..=40).chain([63, 64, 127, 128, 200]) {
        let mut ring = SendRing::<()>::new(length, 0);
        let mut outstanding = std::collections::VecDeque::new();
        for _ in 0..500 {
            let slot = ring.take_inline().unwrap_or_else(|| {
                let oldest = outstanding.pop_front().expect("a full ring without completion");
                assert_eq!(ring.complete(oldest), Some(None));
                ring.take_inline().expect("the completion freed a slot")
            });
            if slot.signaled {
                outstanding.push_back(slot.token);
            }
        }
    }
}

#[test]
fn a_completion_frees_exactly_those_before_it() {
    let mut ring = SendRing::<()>::new(16, 0);
    let slots: Vec<_> = (0..10).map(|_| ring.take_inline().expect("there is room")).collect();
    assert_eq!(ring.credits(), 6);
    assert_eq!(ring.complete(slots[3].token), Some(None));
    assert_eq!(ring.credits(), 10);
    assert_eq!(ring.complete(slots[7].token), Some(None));
    assert_eq!(ring.credits(), 14, "two unsignaled ones are still out");
}

#[test]
fn what_is_held_comes_back_once() {
    let mut ring = SendRing::new(4, 9);
    let token = ring.take_with_payload("buffers").expect("there is room").token;
    assert_eq!(ring.complete(token), Some(Some((0, "buffers"))));
    assert_eq!(ring.complete(token), None, "the slot is free");
    let next = ring.take_with_payload("more").expect("there is room").token;
    assert_eq!(ring.complete(token), None, "an older generation");
    assert_eq!(ring.complete(next), Some(Some((1, "more"))));
}

#[test]
fn holding_sends_count_as_signaled() {
    let mut ring = SendRing::new(16, 0);
    for _ in 0..3 {
        assert!(!ring.take_inline().expect("there is room").signaled);
    }
    let token = ring.take_with_payload(5).expect("there is room").token;
    for _ in 0..3 {
        assert!(!ring.take_inline().expect("there is room").signaled);
    }
    assert!(ring.take_inline().expect("there is room").signaled);
    assert_eq!(ring.payload_count(), 1);
    assert_eq!(ring.complete(token), Some(Some((3, 5))));
    assert_eq!(ring.payload_count(), 0);
    assert_eq!(ring.credits(), 12);
}

#[test]
fn completions_may_be_retired_out_of_order() {
    let mut ring = SendRing::new(16, 0);
    let first = ring.take_with_payload(1).expect("there is room").token;
    let inline = ring.take_inline().expect("there is room");
    let last = ring.take_with_payload(2).expect("there is room").token;
    assert_eq!(ring.complete(last), Some(Some((2, 2))));
    assert_eq!(ring.credits(), 13, "the oldest is still out, so the ring cannot advance");
    assert_eq!(ring.complete(first), Some(Some((0, 1))));
    assert_eq!(ring.credits(), 16);
    assert_eq!(ring.complete(inline.token), None, "the later completion freed it");
}

#[test]
fn each_flushed_send_may_complete_by_itself() {
    let mut ring = SendRing::<()>::new(8, 0);
    let slots: Vec<_> = (0..8).map(|_| ring.take_inline().expect("there is room")).collect();
    for (count, slot) in (1..).zip(&slots) {
        assert_eq!(ring.complete(slot.token), Some(None));
        assert_eq!(ring.credits(), count);
    }
}

#[test]
fn a_full_ring_hands_back_what_it_cannot_hold() {
    let mut ring = SendRing::new(1, 0);
    ring.take_with_payload('a').expect("there is room");
    assert_eq!(ring.take_with_payload('b'), Err('b'));
}

#[test]
fn a_ring_can_be_drained_in_order_across_its_end() {
    let mut ring = SendRing::new(4, 0);
    for number in 0..3 {
        let token = ring.take_with_payload(number).expect("there is room").token;
        ring.complete(token);
    }
    for number in 10..14 {
        ring.take_with_payload(number).expect("there is room");
    }
    assert_eq!(ring.drain().collect::<Vec<_>>(), [(3, 10), (0, 11), (1, 12), (2, 13)]);
    assert_eq!(ring.credits(), 4);
}

#[test]
fn tokens_out_of_range_are_stale() {
    let mut ring = SendRing::<()>::new(4, 0);
    let first = ring.take_inline().expect("there is room").token;
    assert_eq!(ring.complete(first - 1), None, "before the first");
    assert_eq!(ring.complete(first + 1), None, "free slots have no completion");
    assert_eq!(ring.complete(0), None);
    assert_eq!(ring.complete(u64::MAX), None);
}

#[test]
fn two_slots_are_taken_or_none() {
    let mut ring = SendRing::new(9, 0);
    let taken: Vec<_> = (0..4).map(|at| ring.take_two(at).expect("there is room")).collect();
    assert_eq!(ring.take_two(4), None);
    assert_eq!((ring.credits(), ring.payload_count()), (1, 4));
    for (at, (first, second)) in (0..).zip(taken) {
        assert_eq!((second.token, second.index), (first.token + 1, 2 * at + 1));
        assert_eq!(ring.complete_payload(second.token), Some(2 * at + 1));
        assert_eq!(ring.complete_payload(second.token), None, "only once");
    }
    assert_eq!(ring.credits(), 9, "the first of each is done with the second");
}

/// All mixtures of four sends, completed in all orders, at each place of a ring.
#[test]
fn a_payload_alone_is_completed_as_any_send() {
    let orders = (0..256).map(|code: usize| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6]);
    for (order, kinds) in orders.flat_map(|order| (0..16).map(move |kinds| (order, kinds))) {
        for before in 0..8 {
            let mut rings = [SendRing::new(8, 0), SendRing::new(8, 0)];
            let tokens = rings.each_mut().map(|ring| {
                for _ in 0..before {
                    let token = ring.take_with_payload(9).expect("there is room").token;
                    ring.complete(token);
                }
                [0, 1, 2, 3].map(|at| match kinds >> at & 1 {
                    0 => ring.take_inline().expect("there is room").token,
                    _ => ring.take_with_payload(at).expect("there is room").token,
                })
            });
            assert_eq!(tokens[0], tokens[1]);
            let [one, other] = &mut rings;
            for at in order {
                let token = tokens[0][at];
                let expected = one.complete(token);
                if one.payload(token).is_none() && kinds >> at & 1 == 1 {
                    let index = expected.flatten().map(|(index, _)| index);
                    assert_eq!(other.complete_payload(token), index, "{kinds:b} {order:?}");
                } else {
                    assert_eq!(other.complete(token), expected, "{kinds:b} {order:?}");
                }
                let state = |ring: &SendRing<i32>| (ring.credits(), ring.payload_count());
                assert_eq!(state(one), state(other), "{kinds:b} {order:?}");
            }
        }
    }
}
