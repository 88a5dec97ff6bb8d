//! The counts every model works on: shape, invariants, depth and batch of the cells.
use std::sync::OnceLock;

use sprs::CsMatViewI;

use crate::{Error, Result};

/// UMI counts of guides in cells. Borrowed from the caller: the compressed rows of a cells x guides matrix are the
/// compressed columns of R's guides x cells `dgCMatrix`.
pub struct GuideCounts<'a> {
    matrix: CsMatViewI<'a, f64, i32>,
    depth: Vec<f64>,
    batch: Vec<u32>,
    n_batches: usize,
    /// Of each cell, ln of its covariate over the mean; empty without one.
    ln_covariate: Vec<f64>,
    by_guide: OnceLock<GuideMajor>,
}

/// The guide-major view: for each guide its cells in increasing order.
pub struct GuideMajor {
    indptr: Vec<usize>,
    cell: Vec<u32>,
    count: Vec<u32>,
    /// Where the count stands in the cell-major arrays, to write scores back.
    position: Vec<u32>,
}

/// The stored counts of one guide.
#[derive(Clone, Copy)]
pub struct GuideEntries<'a> {
    pub cell: &'a [u32],
    pub count: &'a [u32],
    pub position: &'a [u32],
}

impl<'a> GuideCounts<'a> {
    /// `indptr` has one more entry than there are cells; `guides` increase within a cell; `counts` are whole numbers
    /// from 1 to 2^31 - 1; `batch` is a code from 0 for each cell.
    pub fn new(
        n_guides: usize,
        indptr: &'a [i32],
        guides: &'a [i32],
        counts: &'a [f64],
        batch: Option<Vec<u32>>,
    ) -> Result<Self> {
        let n_cells = indptr.len().saturating_sub(1);
        let matrix = CsMatViewI::try_new((n_cells, n_guides), indptr, guides, counts)
            .map_err(|(.., error)| Error::Counts(format!("The matrix of counts is not well formed: {error}.")))?;
        if let Some(bad) = first_bad_count(counts) {
            return Err(Error::Counts(format!("Stored count {} is {}.", bad.position + 1, bad.reason)));
        }
        if counts.contains(&0.0) {
            return Err(Error::Counts("The matrix of counts stores zeros; drop them first.".into()));
        }
        let depth = matrix.outer_iterator().map(|cell| cell.data().iter().sum()).collect();
        let batch = batch.unwrap_or_else(|| vec![0; n_cells]);
        if batch.len() != n_cells {
            return Err(Error::Batch(format!("`batch` has {} values for {n_cells} cells.", batch.len())));
        }
        let n_batches = batch.iter().max().map_or(1, |&last| last as usize + 1);
        Ok(Self { matrix, depth, batch, n_batches, ln_covariate: vec![], by_guide: OnceLock::new() })
    }

    /// With a covariate of the cells, such as their RNA UMIs: one positive number each.
    pub fn with_covariate(mut self, covariate: &[f64]) -> Result<Self> {
        let n_cells = self.n_cells();
        if covariate.len() != n_cells {
            let n = covariate.len();
            return Err(Error::Argument(format!("`covariate` has {n} values for {n_cells} cells.")));
        }
        if let Some(at) = covariate.iter().position(|x| !(x.is_finite() && *x > 0.0)) {
            let (cell, value) = (at + 1, covariate[at]);
            return Err(Error::Argument(format!("`covariate` is {value} for cell {cell}; it must be above 0.")));
        }
        let mean = covariate.iter().sum::<f64>() / n_cells as f64;
        self.ln_covariate = covariate.iter().map(|x| (x / mean).ln()).collect();
        Ok(self)
    }

    pub fn n_cells(&self) -> usize {
        self.matrix.rows()
    }

    pub fn n_guides(&self) -> usize {
        self.matrix.cols()
    }

    /// The number of stored counts.
    pub fn n_counts(&self) -> usize {
        self.matrix.nnz()
    }

    pub fn n_batches(&self) -> usize {
        self.n_batches
    }

    /// Guide UMIs of each cell.
    pub fn depth(&self) -> &[f64] {
        &self.depth
    }

    /// Batch code of each cell, from 0.
    pub fn batch(&self) -> &[u32] {
        &self.batch
    }

    pub fn has_covariate(&self) -> bool {
        !self.ln_covariate.is_empty()
    }

    /// ln of the cell's covariate over the mean; 0 without one.
    pub fn ln_covariate(&self, cell: usize) -> f64 {
        self.ln_covariate.get(cell).copied().unwrap_or(0.0)
    }

    /// All stored counts, cell by cell.
    pub fn counts(&self) -> &[f64] {
        self.matrix.data()
    }

    /// The guide of each stored count.
    pub fn guides(&self) -> &[i32] {
        self.matrix.indices()
    }

    /// The stored counts of a cell, as a range into [`Self::counts`] and [`Self::guides`].
    pub fn cell(&self, cell: usize) -> std::ops::Range<usize> {
        self.matrix.indptr().outer_inds_sz(cell)
    }

    /// For a cell the place of its largest count among the stored counts; None for a tie or an empty cell.
    pub fn unique_largest(&self, cell: usize) -> Option<usize> {
        let range = self.cell(cell);
        let y = self.counts();
        let top = range.clone().max_by(|&a, &b| y[a].total_cmp(&y[b]))?;
        (range.filter(|&at| y[at] == y[top]).count() == 1).then_some(top)
    }

    /// Cells with each guide.
    pub fn cells_per_guide(&self) -> Vec<usize> {
        self.by_guide().indptr.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The guide-major view, made by one counting transpose when it is first asked for.
    pub fn by_guide(&self) -> &GuideMajor {
        self.by_guide.get_or_init(|| {
            let mut indptr = vec![0usize; self.n_guides() + 1];
            for &guide in self.guides() {
                indptr[guide as usize + 1] += 1;
            }
            for guide in 0..self.n_guides() {
                indptr[guide + 1] += indptr[guide];
            }
            let mut next = indptr.clone();
            let n = self.n_counts();
            let (mut cell, mut count, mut position) = (vec![0; n], vec![0; n], vec![0; n]);
            for c in 0..self.n_cells() {
                for at in self.cell(c) {
                    let slot = &mut next[self.guides()[at] as usize];
                    cell[*slot] = c as u32;
                    count[*slot] = self.counts()[at] as u32;
                    position[*slot] = at as u32;
                    *slot += 1;
                }
            }
            GuideMajor { indptr, cell, count, position }
        })
    }
}

impl GuideMajor {
    pub fn guide(&self, guide: usize) -> GuideEntries<'_> {
        let range = self.indptr[guide]..self.indptr[guide + 1];
        GuideEntries {
            cell: &self.cell[range.clone()],
            count: &self.count[range.clone()],
            position: &self.position[range],
        }
    }
}

/// A value that is no UMI count, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BadCount {
    /// 0-based place among the stored values.
    pub position: usize,
    pub reason: &'static str,
}

/// The first stored value that is not a whole number from 0 to 2^31 - 1.
pub fn first_bad_count(counts: &[f64]) -> Option<BadCount> {
    counts.iter().enumerate().find_map(|(position, &count)| {
        let reason = if count.is_nan() {
            "not a number"
        } else if count < 0.0 {
            "negative"
        } else if count > i32::MAX as f64 {
            "too large"
        } else if count.fract() != 0.0 {
            "not a whole number"
        } else {
            return None;
        };
        Some(BadCount { position, reason })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guide_major_view_is_the_transpose() {
        let (p, i, x) = ([0, 2, 2, 4], [0, 2, 1, 2], [3.0, 1.0, 7.0, 5.0]);
        let counts = GuideCounts::new(3, &p, &i, &x, None).unwrap();
        assert_eq!(counts.depth(), [4.0, 0.0, 12.0]);
        let guide = counts.by_guide().guide(2);
        assert_eq!((guide.cell, guide.count, guide.position), (&[0, 2][..], &[1, 5][..], &[1, 3][..]));
        assert!(counts.by_guide().guide(0).cell == [0]);
    }

    #[test]
    fn bad_input_is_an_error() {
        let bad = |x: f64| GuideCounts::new(1, &[0, 1], &[0], &[x], None).is_err();
        assert!(bad(f64::NAN) && bad(-1.0) && bad(0.5) && bad(3e9) && bad(0.0) && !bad(2.0));
        assert!(GuideCounts::new(1, &[0, 1], &[1], &[1.0], None).is_err());
        assert!(GuideCounts::new(2, &[0, 2], &[1, 0], &[1.0, 1.0], None).is_err());
        assert!(GuideCounts::new(1, &[0, 1], &[0], &[1.0], Some(vec![])).is_err());
    }

    #[test]
    fn a_covariate_is_one_positive_number_a_cell() {
        let with = |covariate: &[f64]| {
            let counts = GuideCounts::new(1, &[0, 1, 1], &[0], &[1.0], None).unwrap().with_covariate(covariate)?;
            Ok::<_, Error>((counts.ln_covariate(0), counts.ln_covariate(1)))
        };
        assert_eq!(with(&[1.0, 3.0]).unwrap(), ((0.5f64).ln(), (1.5f64).ln()));
        for bad in [&[1.0][..], &[1.0, 0.0], &[1.0, -1.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
    }
}
