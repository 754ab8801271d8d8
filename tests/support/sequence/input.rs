//! Input that decides which operations are carried out.

/// Bytes that are left. When they are used up, choices follow from those before.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    state: u32,
}

impl<'a> Input<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest, state: 1 }
    }

    /// Takes the next three bytes.
    pub(super) fn operation(&mut self) -> Option<[u8; 3]> {
        let (next, rest) = self.rest.split_first_chunk::<3>()?;
        self.rest = rest;
        self.state = next
            .iter()
            .fold(self.state, |state, byte| (state ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Some(*next)
    }

    /// Chooses a number below `bound`, as the bytes so far determine it.
    pub(super) fn pick(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        usize::from(u16::from_be_bytes([self.state.to_be_bytes()[0], self.state.to_be_bytes()[1]]))
            % bound
    }
}
