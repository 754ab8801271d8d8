//! Looks for secrets in timings, by the method of dudect (Reparaz, Balasch, Verbauwhede, 2017).
//!
//! Each calculation runs many times on inputs of two classes in random order; Welch's t says how
//! surely the classes' times differ: above 4.5 it is suspect, above 10 a leak beyond doubt. Times
//! above a percentile are cut off, as interrupts would drown the rest; of all percentiles the worst
//! |t| counts. A comparison that does leak is measured too, to show that this
//! would find one.
//!
//! ```text
//! cargo run --release -p nvme-auth --example leak [thousands of measurements, 300]
//! ```
//!
//! The result of one run is in `leak.txt` beside this file.

use std::{hint::black_box, time::Instant};

use auth::{
    ChallengeInput, EXPONENT_LENGTH_MAX, GroupId, HashId, PrivateKey, ResponseInput, Secret, Tag,
    TransactionId, augmented_challenge, controller_response,
};

/// Wrong responses compared in one measurement, because one is too short to be timed.
const COMPARISONS: usize = 16;

fn main() {
    let thousands = std::env::args().nth(1).map_or(300, |text| text.parse().expect("a number"));
    let count: usize = thousands * 1000;
    println!(
        "{:<46} {:>12} {:>10} {:>8}  verdict",
        "calculation", "measurements", "fastest", "max |t|"
    );

    let tag = tag();
    let right = tag_bytes();
    let compare = |class, random: &mut Random| {
        let candidates = candidates(&right, class, random);
        time(|| {
            for candidate in &candidates {
                black_box(tag.matches(black_box(candidate)));
            }
        })
    };
    report("response: first byte wrong, or last", count, compare);
    let naive = |class, random: &mut Random| {
        let candidates = candidates(&right, class, random);
        time(|| {
            for candidate in &candidates {
                black_box(naive_equal(black_box(&right), black_box(candidate)));
            }
        })
    };
    report("response, compared byte by byte (must leak)", count, naive);

    for (group, divisor) in [(GroupId::FFDHE_2048, 20), (GroupId::FFDHE_8192, 600)] {
        let other = key(group, &[0x77; EXPONENT_LENGTH_MAX]).public_value();
        let power = |class, random: &mut Random| {
            let key = key(group, &exponent(class, random));
            time(|| {
                black_box(key.shared_secret(black_box(&other)).is_ok());
            })
        };
        report(&format!("{group}: exponent of few bits, or random"), count / divisor, power);
    }
}

/// A Tag over a fixed challenge.
fn tag() -> Tag {
    let secret = Secret::from_bytes(HashId::NONE, &[7; 64]).expect("64 bytes");
    let challenge = augmented_challenge(&ChallengeInput {
        hash: HashId::SHA_512,
        group: GroupId::NULL,
        challenge: &[9; 64],
        shared_secret: &[],
    });
    controller_response(&ResponseInput {
        key: &secret.transform("nqn.test:s1"),
        challenge: &challenge.expect("lengths that match"),
        sequence_number: 1,
        transaction_id: TransactionId(1),
        host_nqn: "nqn.test:host",
        subsystem_nqn: "nqn.test:s1",
    })
}

fn tag_bytes() -> Vec<u8> {
    tag().into_wire().as_bytes().to_vec()
}

/// Wrong responses: class 0 differs in the first byte, class 1 in the last. Both are written to in
/// both places, so that what the processor remembers of that is the same.
fn candidates(right: &[u8], class: usize, random: &mut Random) -> [Vec<u8>; COMPARISONS] {
    std::array::from_fn(|_| {
        let mut candidate = right.to_vec();
        let changes = if class == 0 { [random.byte() | 1, 0] } else { [0, random.byte() | 1] };
        for (place, change) in [0, right.len() - 1].into_iter().zip(changes) {
            candidate[place] ^= black_box(change);
        }
        candidate
    })
}

fn naive_equal(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| black_box(one) == black_box(other))
}

/// Class 0: hardly a bit set. Class 1: random.
fn exponent(class: usize, random: &mut Random) -> [u8; EXPONENT_LENGTH_MAX] {
    let drawn = std::array::from_fn(|_| random.byte());
    if class == 0 { [0; EXPONENT_LENGTH_MAX] } else { drawn }
}

fn key(group: GroupId, random: &[u8; EXPONENT_LENGTH_MAX]) -> PrivateKey {
    PrivateKey::from_random(group, random).expect("a group with values")
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9
}

/// Measures both classes in random order and prints the worst |t|.
fn report(what: &str, count: usize, mut measure: impl FnMut(usize, &mut Random) -> f64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut times = [Vec::with_capacity(count), Vec::with_capacity(count)];
    for _ in 0..count {
        let class = usize::from(random.byte() & 1);
        let elapsed = measure(class, &mut random);
        times[class].push(elapsed);
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let (worst, fastest) = (worst_t(&times, &all), all[0] / 1000.0);
    let verdict = match worst {
        t if t > 10.0 => "leaks",
        t if t > 4.5 => "suspect",
        _ => "no leak found",
    };
    println!("{what:<46} {count:>12} {fastest:>7.2} us {worst:>8.2}  {verdict}");
}

/// The largest |t| over all percentiles to cut at; `all` is both classes in order.
fn worst_t(times: &[Vec<f64>; 2], all: &[f64]) -> f64 {
    let cuts = (50..=100).step_by(2).map(|percent| all[(all.len() - 1) * percent / 100]);
    cuts.map(|cut| welch_t(times, cut).abs()).fold(0.0, f64::max)
}

fn welch_t(times: &[Vec<f64>; 2], cut: f64) -> f64 {
    let [one, other] = [0, 1].map(|class| {
        let kept = times[class].iter().filter(|&&time| time <= cut);
        let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
        for &time in kept {
            count += 1.0;
            let before = time - mean;
            mean += before / count;
            squares += before * (time - mean);
        }
        (count, mean, squares / (count - 1.0))
    });
    (one.1 - other.1) / (one.2 / one.0 + other.2 / other.0).sqrt()
}

/// Xorshift: the inputs need not be secret.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()[3]
    }
}
