//! Every kind of secret with every hash and group, one-way and two-way.

use std::time::Instant;

use auth::{Authenticated, HashId};

use super::bed::{GROUPS, HASHES, Keys, choose, connect_and_read, in_runtime, secret_text};

/// One way to authenticate: indices of group and hash, the secrets' transformation and length.
#[derive(Clone, Copy, Debug)]
struct Cell {
    group: usize,
    hash: usize,
    transformation: u8,
    length: usize,
    two_way: bool,
}

/// All of them: 4 transformations × 3 lengths × 3 hashes × 6 groups × one-way and two-way.
fn cells() -> impl Iterator<Item = Cell> {
    (0..6 * 3 * 4 * 3 * 2).map(|index| Cell {
        group: index / 72,
        hash: index / 24 % 3,
        transformation: u8::try_from(index / 6 % 4).expect("below 4"),
        length: [32, 48, 64][index / 2 % 3],
        two_way: index % 2 == 1,
    })
}

/// Connects, authenticates the admin queue and two I/O queues, and does I/O on them.
fn handshake(cell: Cell, seed: u64) {
    let Cell { group, hash, transformation, length, two_way } = cell;
    let ((hash_name, hash), (group_name, group)) = (HASHES[hash], GROUPS[group]);
    choose(hash_name, group_name);
    let secret = |seed| secret_text(HashId(transformation), length, seed);
    let keys = Keys::new(secret(seed), two_way.then(|| secret(seed << 32)));
    keys.set();
    let how = in_runtime(connect_and_read(&keys.options()));
    let expected = Authenticated { hash, group, controller_proved: two_way };
    assert_eq!(how, [Some(expected); 3], "{cell:?}");
}

/// Cases of blktests nvme/042 (kinds of secrets) and nvme/043 (hashes and groups), multiplied, and
/// of SPDK's host/auth.sh, with the null group.
///
/// All of them with `AUTH_MATRIX=all`; otherwise every pair of a group, a hash, a transformation, a
/// length and a direction is among those that are tried.
#[test]
#[ignore = "needs the test bed: run by ./tests/run"]
fn every_secret_hash_and_group_succeeds() {
    let all = std::env::var("AUTH_MATRIX").is_ok_and(|value| value == "all");
    let began = Instant::now();
    let mut done = 0;
    let mut group = 0;
    let mut group_began = began;
    for (cell, seed) in cells().zip(1..) {
        if cell.group != group {
            println!("{}: {:.1} s", GROUPS[group].0, group_began.elapsed().as_secs_f64());
            (group, group_began) = (cell.group, Instant::now());
        }
        if all || is_chosen(cell) {
            handshake(cell, seed);
            done += 1;
        }
    }
    println!("{done} handshakes of 3 queues each in {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(done, if all { 432 } else { 72 });
}

/// One of six: a Latin square of what makes a secret, turned with hash and group.
fn is_chosen(cell: Cell) -> bool {
    let length = cell.length / 16 - 2;
    let kind = 2 * length + usize::from(cell.two_way);
    (kind + cell.group + 2 * cell.hash + usize::from(cell.transformation)).is_multiple_of(6)
}

#[test]
fn the_choice_has_every_pair() {
    let numbers = |cell: Cell| {
        [cell.group, cell.hash, cell.transformation.into(), cell.length, cell.two_way.into()]
    };
    let chosen: Vec<_> = cells().filter(|&cell| is_chosen(cell)).map(numbers).collect();
    assert_eq!((chosen.len(), cells().count()), (72, 432));
    for pair in cells().map(numbers) {
        for (one, other) in
            [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
        {
            let alike = |cell: &[usize; 5]| cell[one] == pair[one] && cell[other] == pair[other];
            assert!(chosen.iter().any(alike), "{pair:?}: {one} with {other}");
        }
    }
}
