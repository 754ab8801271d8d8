//! What one read costs before and after the device, for the script `instructions` to count: its
//! command is built, a slot is taken, the response decoded, the slot given back. No I/O.
//!
//! Takes how many times; without, just often enough to see that it works.

use std::hint::black_box;

use benches::{read, response};
use rdma_host::proto::{Slots, Waits};
use rdma_host::wire::{Cqe, FromBytes, IntoBytes, QueueId};

fn main() {
    let times = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(TIMES);
    let mut slots = Slots::new(QueueId(1), 127);
    for turn in 0..times {
        operate(&mut slots, black_box(turn));
    }
    println!("{times} operations");
}

/// One read without the device.
fn operate(slots: &mut Slots, turn: u64) {
    let command = slots.begin(Waits::Response).expect("the slot of the last turn is free");
    black_box(read(command.0, turn * 4096).as_bytes());
    let bytes = response(command);
    let cqe = Cqe::read_from_bytes(black_box(bytes.as_bytes())).expect("it is as long as a CQE");
    let finished = slots.handle_response(cqe);
    assert!(matches!(finished, Ok(Some(_))), "the command waits for its response");
}

const TIMES: u64 = 100;
