//! How many cells have each count of a guide: all that a model without depth needs of the counts.
use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::counts::{pieces, GuideCounts};
use crate::models::MOST_LOG_ODDS;

/// Counts below this are found by their place.
const SMALL: usize = 256;

/// The counts of a guide that occur, rising, and how many cells have each; zeros are left out.
pub type Rows = Vec<(u32, u32)>;

#[derive(Clone, Default)]
pub struct Histogram {
    /// By the count, as far as it has come.
    small: Vec<u32>,
    large: BTreeMap<u32, u32>,
}

impl Histogram {
    pub fn add(&mut self, y: u32) {
        self.add_cells(y, 1);
    }

    fn add_cells(&mut self, y: u32, n: u32) {
        let at = y as usize;
        if at >= SMALL {
            *self.large.entry(y).or_default() += n;
            return;
        }
        if self.small.len() <= at {
            self.small.resize(at + 1, 0);
        }
        self.small[at] += n;
    }

    fn merge(&mut self, mut other: Self) {
        if other.small.len() > self.small.len() {
            std::mem::swap(&mut self.small, &mut other.small);
        }
        self.small.iter_mut().zip(other.small).for_each(|(n, more)| *n += more);
        other.large.into_iter().for_each(|(y, n)| self.add_cells(y, n));
    }

    pub fn rows(self) -> Rows {
        let mut rows = Vec::with_capacity(self.small.iter().filter(|&&n| n > 0).count() + self.large.len());
        rows.extend((0..).zip(self.small).filter(|&(_, n)| n > 0).chain(self.large));
        rows
    }
}

/// The histogram of each guide, in one pass over the counts.
pub fn of_guides(counts: &GuideCounts) -> Vec<Rows> {
    let all = counts.per_guide(|histogram: &mut Histogram, y| histogram.add(y as u32), Histogram::merge);
    all.into_par_iter().map(Histogram::rows).collect()
}

/// Posteriors and their log odds, of the rows of each guide's histogram; none where nothing of the guide is called.
#[derive(Debug, Clone, Default)]
pub struct PosteriorsOfRows {
    pub score: Vec<Option<Vec<f64>>>,
    pub log_odds: Vec<Option<Vec<f64>>>,
}

impl PosteriorsOfRows {
    pub fn scores<'a>(&'a self, histograms: &'a [Rows]) -> RowScores<'a> {
        RowScores::new(histograms, &self.score, 0.0)
    }

    pub fn log_odds<'a>(&'a self, histograms: &'a [Rows]) -> RowScores<'a> {
        RowScores::new(histograms, &self.log_odds, -MOST_LOG_ODDS)
    }
}

/// A value for each row of the histograms, such as its score, to be asked for by guide and count.
pub struct RowScores<'a> {
    histograms: &'a [Rows],
    scores: &'a [Option<Vec<f64>>],
    /// The value where a guide has none.
    none: f64,
    /// Of small counts: where those of each guide start, and the scores by count.
    starts: Vec<usize>,
    by_count: Vec<f64>,
}

impl<'a> RowScores<'a> {
    /// `scores` of a guide are those of its rows.
    pub fn new(histograms: &'a [Rows], scores: &'a [Option<Vec<f64>>], none: f64) -> Self {
        let end_of_small = |rows: &Rows| {
            let n = rows.partition_point(|&(y, _)| (y as usize) < SMALL);
            rows[..n].last().map_or(0, |&(y, _)| y as usize + 1)
        };
        let lengths: Vec<usize> = histograms.iter().map(end_of_small).collect();
        let mut starts = vec![0];
        starts.extend(lengths.iter().scan(0, |end, n| {
            *end += n;
            Some(*end)
        }));
        let mut by_count = vec![none; lengths.iter().sum()];
        pieces(&mut by_count, lengths.into_iter()).into_par_iter().zip(histograms).zip(scores).for_each(
            |((piece, rows), scores)| {
                for (&(y, _), &score) in rows.iter().zip(scores.iter().flatten()) {
                    if let Some(of_count) = piece.get_mut(y as usize) {
                        *of_count = score;
                    }
                }
            },
        );
        Self { histograms, scores, none, starts, by_count }
    }

    fn at(&self, guide: usize, y: u32) -> f64 {
        if let Some(&score) = self.by_count[self.starts[guide]..self.starts[guide + 1]].get(y as usize) {
            return score;
        }
        let row = self.histograms[guide].binary_search_by_key(&y, |&(y, _)| y).ok();
        self.scores[guide].as_ref().zip(row).map_or(self.none, |(scores, row)| scores[row])
    }

    /// The score of every stored count.
    pub fn of(&self, guides: &[i32], counts: &[f64]) -> Vec<f64> {
        let score = |(&guide, &y): (&i32, &f64)| self.at(guide as usize, y as u32);
        guides.par_iter().zip(counts).with_min_len(1 << 13).map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_find_the_counts_they_are_of() {
        // Cells x guides; the second guide has none, the third no scores.
        let (indptr, guides) = ([0, 2, 3, 5, 7], [0, 2, 0, 0, 2, 0, 2]);
        let y = [3.0, 1.0, 300.0, 3.0, 5.0, 70_000.0, 1.0];
        let counts = GuideCounts::new(3, &indptr, &guides, &y, None).unwrap();
        let histograms = of_guides(&counts);
        assert_eq!(histograms, [vec![(3, 2), (300, 1), (70_000, 1)], vec![], vec![(1, 2), (5, 1)]]);
        let scores = [Some(vec![0.1, 0.2, 0.3]), Some(vec![]), None];
        let of = |none| RowScores::new(&histograms, &scores, none).of(&guides, &y);
        assert_eq!(of(0.0), [0.1, 0.0, 0.2, 0.1, 0.0, 0.3, 0.0]);
        assert_eq!(of(-9.0), [0.1, -9.0, 0.2, 0.1, -9.0, 0.3, -9.0]);
    }
}
