//! Map from queue pair numbers to queues.

/// Hash table with twice as many rows as there are queue pairs, with linear probing. Devices number
/// their queue pairs in sequence, so that most are found in the first row.
pub(super) struct QueueMap {
    /// Queue pair number and index of the queue; a power of two of them.
    rows: Vec<(u32, u32)>,
}

/// Number in a free row. Queue pair numbers have 24 bits.
const FREE: u32 = u32::MAX;

impl QueueMap {
    /// Creates the map of queues with these numbers, in the order of their indices.
    pub(super) fn new(numbers: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut rows = vec![(FREE, 0); (2 * numbers.len()).next_power_of_two()];
        let mask = rows.len() - 1;
        for (index, number) in (0..).zip(numbers) {
            let mut at = number as usize & mask;
            while rows[at].0 != FREE {
                at = (at + 1) & mask;
            }
            rows[at] = (number, index);
        }
        Self { rows }
    }

    /// Index of the queue with this queue pair number.
    #[inline]
    pub(super) fn find(&self, number: u32) -> Option<usize> {
        let mask = self.rows.len() - 1;
        let mut at = number as usize & mask;
        loop {
            match self.rows[at] {
                (found, index) if found == number => return Some(index as usize),
                (FREE, _) => return None,
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
            let map = QueueMap::new(numbers.iter().copied());
            for number in 0..2000 {
                let expected = numbers.iter().position(|&other| other == number);
                assert_eq!(map.find(number), expected, "{number} of {numbers:?}");
            }
        }
    }
}
