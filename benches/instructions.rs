//! What one read costs before and after the device, for the script `instructions` to count: its
//! command is built, a slot is taken, the response decoded, the slot given back. No I/O. With a
//! window for each command, in memory mode `window`, the key that was lent is checked, too.
//!
//! Takes the memory mode and how many times; without, pool and just often enough to see that it
//! works.

use std::hint::black_box;

use benches::{read, response};
use rdma_host::proto::{Answered, Slots, Waits};
use rdma_host::wire::{Cqe, FromBytes, IntoBytes, QueueId, RemoteKey};

fn main() {
    let times = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(TIMES);
    let window = std::env::args().any(|argument| argument == "window");
    let mut slots = Slots::new(QueueId(1), 127);
    // A loop each, so that neither pays for the other.
    if window {
        (0..times).for_each(|turn| operate_window(&mut slots, black_box(turn)));
    } else {
        (0..times).for_each(|turn| operate(&mut slots, black_box(turn)));
    }
    println!("{times} operations");
}

/// One read without the device.
fn operate(slots: &mut Slots, turn: u64) {
    let command = slots.begin(Waits::Response).expect("the slot of the last turn is free");
    black_box(read(command.0, turn * 4096).as_bytes());
    let bytes = response(command);
    let cqe = Cqe::read_from_bytes(black_box(bytes.as_bytes())).expect("it is as long as a CQE");
    let answered = slots.handle_response(cqe, None);
    assert!(matches!(answered, Ok(Answered::Finished(_))), "the command waits for its response");
}

/// The same with a window, whose key the response takes out of use; the send completes last.
fn operate_window(slots: &mut Slots, turn: u64) {
    let command = slots.begin(Waits::ResponseAndSend).expect("the slot of the last turn is free");
    let key = black_box(RemoteKey(7));
    slots.lend(command, key);
    black_box(read(command.0, turn * 4096).as_bytes());
    let bytes = response(command);
    let cqe = Cqe::read_from_bytes(black_box(bytes.as_bytes())).expect("it is as long as a CQE");
    let answered = slots.handle_response(cqe, Some(key));
    assert!(matches!(answered, Ok(Answered::Pending)), "the send has not completed");
    assert!(slots.handle_sent(slots.slot(command)).is_some(), "now it has");
}

const TIMES: u64 = 100;
