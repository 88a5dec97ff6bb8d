//! Readers: one file per format, each the only user of what it needs.

use std::collections::BTreeSet;

use crate::counts::GuideCounts;
use crate::Result;

pub mod h5ad;
pub mod h5mu;
pub mod inspect;

/// What a guide-count file holds, as the compressed rows of a cells x guides matrix, which are byte for byte the
/// compressed columns of R's guides x cells `dgCMatrix`.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideFile {
    /// Start of each cell's counts; length cells + 1.
    pub indptr: Vec<i32>,
    /// Guide of each count, 0-based, increasing within a cell.
    pub guides: Vec<i32>,
    /// UMIs, whole and > 0 (explicit zeros are dropped).
    pub counts: Vec<f64>,
    pub cell_names: Vec<String>,
    pub guide_names: Vec<String>,
    /// The obs column that was asked for.
    pub batch: Option<Vec<String>>,
}

impl GuideFile {
    /// The batches in the order of their codes: sorted by bytes, as R sorts the levels of a factor in the C locale.
    pub fn batches(&self) -> Option<Vec<&str>> {
        let levels: BTreeSet<&str> = self.batch.as_ref()?.iter().map(String::as_str).collect();
        Some(levels.into_iter().collect())
    }

    /// The counts for the models, with the batch of each cell where one was read.
    pub fn guide_counts(&self) -> Result<GuideCounts<'_>> {
        let codes = self.batch.as_ref().zip(self.batches()).map(|(batch, levels)| {
            // Every batch is one of the levels, so the point of insertion is its place.
            batch.iter().map(|name| levels.partition_point(|level| *level < name.as_str()) as u32).collect()
        });
        GuideCounts::new(self.guide_names.len(), &self.indptr, &self.guides, &self.counts, codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(batch: Option<&[&str]>) -> GuideFile {
        GuideFile {
            indptr: vec![0, 1, 1, 2, 3],
            guides: vec![1, 0, 1],
            counts: vec![3.0, 1.0, 2.0],
            cell_names: ["a", "b", "c", "d"].map(String::from).to_vec(),
            guide_names: ["g", "h"].map(String::from).to_vec(),
            batch: batch.map(|names| names.iter().map(|name| name.to_string()).collect()),
        }
    }

    #[test]
    fn batches_are_coded_in_the_order_of_their_bytes() {
        let file = file(Some(&["b", "10", "B", "2"]));
        assert_eq!(file.batches().unwrap(), ["10", "2", "B", "b"]);
        let counts = file.guide_counts().unwrap();
        assert_eq!((counts.batch(), counts.n_batches()), (&[3, 0, 2, 1][..], 4));
        assert_eq!((counts.n_cells(), counts.n_guides(), counts.depth()), (4, 2, &[3.0, 0.0, 1.0, 2.0][..]));
    }

    #[test]
    fn without_a_batch_there_is_one() {
        let file = file(None);
        assert_eq!(file.batches(), None);
        assert_eq!(file.guide_counts().unwrap().batch(), [0, 0, 0, 0]);
    }
}
