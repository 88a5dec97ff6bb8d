//! The cells that a pass looks at, and where their stored counts lie.
use std::collections::HashMap;
use std::ops::Range;

use super::cell::Counts;
use super::tables::Class;
use crate::counts::GuideCounts;

/// Cells that are summed together; fixes the order of sums. More where there are more than [`BLOCKS`] of these.
const BLOCK: usize = 256;
const BLOCKS: usize = 128;
const FEWEST_CELLS: usize = 600;
/// Classes per power of e of the covariate.
const COVARIATE_BINS: f64 = 8.0;

/// Cells by class: the cells that one looks at, and how many of each class have no UMI, which are all alike.
pub struct Sample<'a> {
    pub counts: &'a GuideCounts<'a>,
    /// Cells with UMIs.
    pub cells: Vec<usize>,
    pub class_of: Vec<u32>,
    /// Those without, and their classes.
    pub zeros: Vec<(usize, u32)>,
    pub classes: Vec<Class>,
    /// Per class: cells with UMIs.
    pub with_umis: Vec<f64>,
    pub n_counts: usize,
    /// Cells that stand for all that are like them, by their place, and how many those are: cells with one guide.
    pub patterns: Vec<(u32, f64)>,
    /// Their stored counts.
    pub n_patterned: usize,
}

impl<'a> Sample<'a> {
    pub fn new(counts: &'a GuideCounts<'a>, cells: impl Iterator<Item = usize>) -> Self {
        let bin = |cell: usize| (counts.ln_covariate(cell) * COVARIATE_BINS).round() as i32;
        let key = |cell: usize| (counts.batch()[cell], bin(cell));
        let cells: Vec<usize> = cells.collect();
        let mut keys: Vec<(u32, i32)> = cells.iter().map(|&cell| key(cell)).collect();
        keys.sort_unstable();
        keys.dedup();
        let classes = keys
            .iter()
            .map(|&(batch, bin)| Class { batch: batch as usize, ln_covariate: f64::from(bin) / COVARIATE_BINS })
            .collect();
        let mut sample = Self {
            counts,
            cells: vec![],
            class_of: vec![],
            zeros: vec![],
            classes,
            with_umis: vec![0.0; keys.len()],
            n_counts: 0,
            patterns: vec![],
            n_patterned: 0,
        };
        let mut seen: HashMap<(usize, i32, u64), usize> = HashMap::new();
        for cell in cells {
            // Every key is one of the keys.
            let class = keys.partition_point(|k| *k < key(cell));
            let n = counts.cell(cell).len();
            if n == 0 {
                sample.zeros.push((cell, class as u32));
            } else {
                sample.with_umis[class] += 1.0;
                let place = sample.cells.len();
                let at = counts.cell(cell).start;
                let key = (class, counts.guides()[at], counts.counts()[at] as u64);
                match seen.get(&key) {
                    Some(&pattern) if n == 1 => {
                        let pattern: &mut (u32, f64) = &mut sample.patterns[pattern];
                        pattern.1 += 1.0;
                    }
                    _ => {
                        if n == 1 {
                            seen.insert(key, sample.patterns.len());
                        }
                        sample.patterns.push((place as u32, 1.0));
                        sample.n_patterned += n;
                    }
                }
                sample.cells.push(cell);
                sample.class_of.push(class as u32);
                sample.n_counts += n;
            }
        }
        sample
    }

    /// Every so many of the cells with UMIs, so that all lanes are there: about so many cells and counts at most.
    pub fn some(counts: &'a GuideCounts<'a>, (most_cells, most_counts): (usize, usize)) -> Self {
        let cells: Vec<usize> = (0..counts.n_cells()).filter(|&cell| !counts.cell(cell).is_empty()).collect();
        let n = cells.len();
        // A few hundred cells at least, however many counts they have.
        let by_counts = counts.n_counts().div_ceil(most_counts).clamp(1, (n / FEWEST_CELLS).max(1));
        let step = n.div_ceil(most_cells).max(1).max(by_counts);
        let without = (0..counts.n_cells()).filter(|&cell| step == 1 && counts.cell(cell).is_empty());
        Self::new(counts, cells.into_iter().step_by(step).chain(without))
    }

    pub fn cell(&self, place: usize) -> Counts<'_> {
        let cell = self.cells[place];
        let at = self.counts.cell(cell);
        Counts {
            class: self.class_of[place] as usize,
            guides: &self.counts.guides()[at.clone()],
            umis: &self.counts.counts()[at],
            depth: self.counts.depth()[cell],
        }
    }

    /// So many things, in ranges that a thread takes at once.
    pub fn blocks(n: usize) -> Vec<Range<usize>> {
        let each = BLOCK.max(n.div_ceil(BLOCKS));
        (0..n).step_by(each).map(|first| first..(first + each).min(n)).collect()
    }
}
