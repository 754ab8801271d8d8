//! Instructions of one command before and after the device: build, track, decode. No I/O.

use std::hint::black_box;

use benches::{read, response};
use criterion::{Criterion, criterion_group, criterion_main};
use rdma_host::{
    proto::{CompletesOn, Slots},
    wire::{Cqe, FromBytes, IntoBytes, QueueId},
};

fn build(criterion: &mut Criterion) {
    criterion.bench_function("build a read", |bencher| {
        bencher.iter(|| read(black_box(5), black_box(0x1000)));
    });
}

fn decode(criterion: &mut Criterion) {
    let mut slots = Slots::<()>::new(QueueId(1), 127);
    criterion.bench_function("begin and complete a command", |bencher| {
        bencher.iter(|| {
            let begun =
                slots.begin(CompletesOn::Response, None).expect("the last one has completed");
            let bytes = response(begun.command);
            let cqe = Cqe::read_from_bytes(black_box(bytes.as_bytes()));
            slots.handle_response(cqe.unwrap_or_default(), None)
        });
    });
}

criterion_group!(benches, build, decode);
criterion_main!(benches);
