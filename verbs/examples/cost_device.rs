//! Cost of a send and a completion through `RdmaCore`. `cost.sh` counts it over
//! `stub_device.c`, a device that does next to nothing. It also tells what it is over a real
//! device, its plug-in included, by either set of calls: run where there is one, with
//! `RDMA_TEST_ADDRESS` set, and `RDMA_TEST_API` to `legacy` or `extended`:
//!
//! ```sh
//! valgrind --tool=callgrind --toggle-collect='*::cost_post_chain' cost_device
//! ```
//!
//! and divide what was collected by what this program says.

#[allow(dead_code)] // the tests need more of it
#[path = "../tests/pair/mod.rs"]
mod pair;

use pair::{End, Pair};
use verbs::{Access, CompletedWork, Completion, QueuePairCapabilities};

const DEPTH: u32 = 16;
const ROUNDS: u32 = 100;

/// Sixteen inline sends, handed over together.
#[inline(never)]
fn cost_post_chain(end: &mut End, message: &[u8; 64]) {
    for _ in 0..DEPTH {
        end.queue_pair.send_inline(message).expect("there is room");
    }
    end.queue_pair.flush().expect("the device takes them");
}

/// One inline send, handed over by itself.
#[inline(never)]
fn cost_post_one(end: &mut End, message: &[u8; 64]) {
    end.queue_pair.send_inline(message).expect("there is room");
    end.queue_pair.flush().expect("the device takes it");
}

/// All that has come, which is sixteen.
#[inline(never)]
fn cost_poll(end: &mut End, out: &mut [Completion; 32]) -> usize {
    end.queue.poll(out).expect("the queue has not overrun")
}

/// One of those, taken by itself.
#[inline(never)]
fn cost_poll_one(end: &mut End, out: &mut [Completion]) -> usize {
    end.queue.poll(&mut out[..1]).expect("the queue has not overrun")
}

/// Nothing.
#[inline(never)]
fn cost_poll_empty(end: &mut End, out: &mut [Completion; 32]) -> usize {
    let none = end.queue.poll(out).expect("the queue has not overrun");
    none + end.queue.poll(out).expect("the queue has not overrun")
}

fn main() {
    let size = QueuePairCapabilities {
        max_send_wr: 2 * DEPTH,
        max_recv_wr: DEPTH,
        max_send_sge: 1,
        max_inline_data: 64,
    };
    let Pair { mut client, mut server } = Pair::connect(4799, size);
    let message = [7; 64];
    let mut out = [Completion::default(); 32];
    let mut buffers: Vec<_> = (0..DEPTH)
        .map(|_| server.domain.allocate(64, Access::LOCAL_WRITE).expect("memory"))
        .collect();
    for round in 0..ROUNDS {
        for buffer in buffers.drain(..) {
            server.queue_pair.post_receive(buffer, 0).expect("there is room");
        }
        server.queue_pair.flush().expect("the device takes them");
        if round % 2 == 0 {
            cost_post_chain(&mut client, &message);
        } else {
            (0..DEPTH).for_each(|_| cost_post_one(&mut client, &message));
        }
        while client.queue_pair.send_credits() < 2 * DEPTH {
            let count = client.queue.poll(&mut out).expect("the queue has not overrun");
            for completion in &out[..count] {
                client.queue_pair.complete(completion).expect("it is ours");
            }
        }
        let came = match round % 4 {
            0 | 1 => cost_poll(&mut server, &mut out),
            _ => (0..DEPTH as usize).map(|at| cost_poll_one(&mut server, &mut out[at..])).sum(),
        };
        assert_eq!(came, DEPTH as usize, "all were acknowledged");
        assert_eq!(cost_poll_empty(&mut server, &mut [Completion::default(); 32]), 0);
        for completion in &out[..DEPTH as usize] {
            match server.queue_pair.complete(completion) {
                Ok(CompletedWork::Receive { buffer, length: 64, .. }) => buffers.push(buffer),
                other => panic!("a message of 64 bytes was sent: {other:?}"),
            }
        }
    }
    let api = client.queue_pair.api();
    assert_eq!(api, server.queue.api());
    println!("{api:?}");
    println!("cost_post_chain {}", ROUNDS / 2 * DEPTH);
    println!("cost_post_one {}", ROUNDS / 2 * DEPTH);
    println!("cost_poll {}", ROUNDS / 2 * DEPTH);
    println!("cost_poll_one {}", ROUNDS / 2 * DEPTH);
    println!("cost_poll_empty {}", 2 * ROUNDS);
}
