//! Sizes that somebody else wrote.

/// So many bytes there cannot be, whoever says so: sums and percentages of fewer do not overflow.
const MOST: u64 = 1 << 56;

/// The sum of sizes in bytes; `None` where they are a lie.
pub fn sum(mut sizes: impl Iterator<Item = u64>) -> Option<u64> {
    sizes.try_fold(0_u64, |sum, size| sum.checked_add(size).filter(|sum| *sum <= MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_of_lies_is_none() {
        assert_eq!(sum([1, 2].into_iter()), Some(3));
        for lies in [[u64::MAX, 1], [1 << 63, 1 << 63], [MOST, 1]] {
            assert_eq!(sum(lies.into_iter()), None);
        }
    }
}
