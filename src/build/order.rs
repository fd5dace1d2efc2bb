//! The order of the layers: canonical, or after a predecessor what it has already first.

use crate::oci::Digest;

/// The image that the next one is built after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// Its layers, the base first. Nothing else of it decides anything.
    pub diff_ids: Vec<Digest>,
}

impl Predecessor {
    /// The chain id of its last layer (image-spec, config.md): the same wherever the image lies.
    pub fn chain_id(&self) -> Option<Digest> {
        let chain = |below: Digest, diff_id: &Digest| Digest::of(format!("{below} {diff_id}"));
        let (first, rest) = self.diff_ids.split_first()?;
        Some(rest.iter().fold(*first, chain))
    }
}

/// Puts layers into the order in which they are built. `diff_ids` are in canonical order, the first `fixed` (the base)
/// stay where they are. The answer holds indices into `diff_ids`.
///
/// A classic engine looks a layer up by the chain below it, so everything after the first change is sent again: what
/// the predecessor has comes first, in its order; what changed comes last, where the next change of the same service
/// moves nothing else.
pub fn order(diff_ids: &[Digest], fixed: usize, predecessor: &[Digest]) -> Vec<usize> {
    let place = |index: usize| predecessor.iter().position(|diff_id| *diff_id == diff_ids[index]);
    let (mut kept, changed): (Vec<usize>, Vec<usize>) =
        (fixed..diff_ids.len()).partition(|index| place(*index).is_some());
    kept.sort_by_key(|index| place(*index));
    (0..fixed.min(diff_ids.len())).chain(kept).chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<Digest> {
        names.iter().map(Digest::of).collect()
    }

    #[test]
    fn order_without_predecessor_is_canonical() {
        assert_eq!(order(&ids(&["base", "a", "b"]), 1, &[]), [0, 1, 2]);
    }

    #[test]
    fn order_keeps_the_predecessors_and_moves_changes_to_the_end() {
        let predecessor = ids(&["base", "c", "a", "b"]);
        assert_eq!(order(&ids(&["base", "a", "b2", "c"]), 1, &predecessor), [0, 3, 1, 2]);
        assert_eq!(order(&ids(&["base2", "a", "b", "c", "d"]), 1, &predecessor), [0, 3, 1, 2, 4]);
        assert_eq!(order(&ids(&["a", "b"]), 0, &ids(&["b", "a"])), [1, 0]);
    }
}
