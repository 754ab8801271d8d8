//! Finds a queue by the number of its queue pair.

/// A table of numbers, twice as long as there are and so never full: one is found in its own place
/// or shortly behind. Devices deal numbers out in turn, so most are in their own.
pub(super) struct Directory {
    /// A number, and the index of its queue. Their count is a power of two.
    rows: Vec<(u32, u32)>,
}

/// In the row of no queue; queue pair numbers have 24 bits.
const NONE: u32 = u32::MAX;

impl Directory {
    /// The numbers of queues, in the order of their indices.
    pub(super) fn of(numbers: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut rows = vec![(NONE, 0); (2 * numbers.len()).next_power_of_two()];
        let mask = rows.len() - 1;
        for (index, number) in (0..).zip(numbers) {
            let mut at = number as usize & mask;
            while rows[at].0 != NONE {
                at = (at + 1) & mask;
            }
            rows[at] = (number, index);
        }
        Self { rows }
    }

    /// The index of the queue with this number.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        let mask = self.rows.len() - 1;
        let mut at = number as usize & mask;
        loop {
            match self.rows[at] {
                (found, index) if found == number => return Some(index as usize),
                (NONE, _) => return None,
                _ => at = (at + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_found_and_no_other() {
        for numbers in [vec![], vec![7], vec![0, 8, 16, 24, 1], (17..1017).collect()] {
            let directory = Directory::of(numbers.iter().copied());
            for number in 0..2000 {
                let expected = numbers.iter().position(|&other| other == number);
                assert_eq!(directory.find(number), expected, "{number} of {numbers:?}");
            }
        }
    }
}
