//! Tokens (`wr_id`) by which completions are matched to work requests: packed numbers, never
//! pointers.

use std::sync::atomic::{AtomicU32, Ordering};

/// Queue that a work request is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WorkKind {
    /// Receive queue.
    Receive,
    /// Send queue, which also has writes, reads, binds and invalidations.
    Send,
}

impl WorkKind {
    /// The top byte of a token of this kind. The rest of a send's is its number.
    #[inline]
    pub(crate) const fn mark(self) -> u64 {
        match self {
            Self::Receive => RECEIVE << 56,
            Self::Send => SEND << 56,
        }
    }
}

/// Slot of a receive, and the generation of its use.
///
/// ```text
///   63      56 55            32 31                     0
///   [  kind   |      slot      |      generation        ]
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    pub(crate) kind: WorkKind,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// Panics on a slot that the layout cannot hold; tables are made smaller than that.
    #[inline]
    pub(crate) fn pack(self) -> u64 {
        assert!(self.slot < SLOTS_MAX, "a table has fewer slots than a token can name");
        self.kind.mark() | u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// `None` when the number was not packed here: 0, for one, never is.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each part has so many bits")]
    pub(crate) fn unpack(number: u64) -> Option<Self> {
        let kind = match number >> 56 {
            RECEIVE => WorkKind::Receive,
            SEND => WorkKind::Send,
            _ => return None,
        };
        Some(Self { kind, slot: Self::slot(number), generation: number as u32 })
    }
}

impl Token {
    /// Slot in the token of a receive.
    #[inline]
    pub(crate) fn slot(number: u64) -> u32 {
        (number >> 32) as u32 & (SLOTS_MAX - 1)
    }

    /// Token of the next use of a receive's slot: the generation, which is its lower half, wraps.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the generation is the lower half")]
    pub(crate) fn next(number: u64) -> u64 {
        number >> 32 << 32 | u64::from((number as u32).wrapping_add(1))
    }
}

/// Far apart, so that a completion of an earlier queue pair of the same number is stale.
pub(crate) fn next_generation() -> u32 {
    GENERATION.fetch_add(GENERATION_STEP, Ordering::Relaxed)
}

/// Number of slots that a token can name.
pub(crate) const SLOTS_MAX: u32 = 1 << 24;

/// Odd, so that all numbers are visited; large, so that neighbours are far apart.
const GENERATION_STEP: u32 = 0x9E37_79B1;

static GENERATION: AtomicU32 = AtomicU32::new(0);

const RECEIVE: u64 = 0x52;
const SEND: u64 = 0x53;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_packing() {
        for kind in [WorkKind::Receive, WorkKind::Send] {
            for slot in [0, 1, 0xABCDEF, SLOTS_MAX - 1] {
                for generation in [0, 1, 0x8000_0000, u32::MAX] {
                    let token = Token { kind, slot, generation };
                    assert_eq!(Token::unpack(token.pack()), Some(token));
                }
            }
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let token = Token { kind: WorkKind::Send, slot: 0x010203, generation: 0x0405_0607 };
        assert_eq!(token.pack(), 0x5301_0203_0405_0607);
    }

    #[test]
    fn generations_wrap_within_their_half() {
        let token = |generation| Token { kind: WorkKind::Receive, slot: 7, generation }.pack();
        assert_eq!(Token::next(token(6)), token(7));
        assert_eq!(Token::next(token(u32::MAX)), token(0));
    }

    #[test]
    fn numbers_from_elsewhere_are_no_tokens() {
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "fewer slots")]
    fn a_slot_out_of_range_is_not_packed() {
        Token { kind: WorkKind::Send, slot: SLOTS_MAX, generation: 0 }.pack();
    }
}
