//! Cells of equal depth and batch are one class: all that a family with depth sees of a cell.
use crate::counts::{Entry, GuideCounts, GuideMajor, BLOCK};
use crate::mixture::{self, Mixture, Obs};
use rayon::prelude::*;

/// Counts and classes that are found by their place.
const SMALL: usize = 1 << 13;
/// Share of all UMIs in cells of at least the typical depth: neither a crowd of empty cells moves it nor a few huge ones.
const CELLS_WITH: f64 = 0.9;

/// The classes, sorted by depth and batch, and where zeros are grouped, bins of them: within an eighth of an octave (wider with
/// many batches) the mean depth stands for all.
pub struct DepthClasses {
    /// Of cells without guide UMIs, which say nothing under any rate, no class.
    of_cell: Vec<u32>,
    class: Vec<Class>,
    bin: Vec<Bin>,
    /// UMIs on top of the depth of every cell.
    added: f64,
}

struct Class {
    depth: f64,
    batch: u32,
    bin: usize,
}

#[derive(Clone)]
struct Bin {
    batch: u32,
    /// Cells, and the sum of their depths.
    n: f64,
    depth: f64,
}

impl DepthClasses {
    /// Every cell has `share` of the depth of a typical cell (in whole UMIs) on top of its own.
    pub fn new(counts: &GuideCounts, share: f64) -> Self {
        // Positive numbers have the order of their bits.
        let key = |(&depth, &batch): (&f64, &u32)| (depth.to_bits(), batch);
        let seen = |key: &(u64, u32)| f64::from_bits(key.0) > 0.0;
        let of_block = |(depth, batch): (&[f64], &[u32])| {
            let mut keys: Vec<(u64, u32)> = depth.iter().zip(batch).map(key).filter(seen).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let blocks = counts.depth().par_chunks(BLOCK).zip(counts.batch().par_chunks(BLOCK));
        let mut keys: Vec<(u64, u32)> = blocks.map(of_block).collect::<Vec<_>>().concat();
        keys.par_sort_unstable();
        keys.dedup();

        let cells = counts.depth().par_iter().zip(counts.batch()).with_min_len(BLOCK);
        let of_cell: Vec<u32> =
            cells.map(|cell| keys.binary_search(&key(cell)).map_or(u32::MAX, |class| class as u32)).collect();

        let per_octave = (128 / counts.n_batches()).clamp(1, 8) as f64;
        let bin_of = |&(depth, batch): &(u64, u32)| (batch, (f64::from_bits(depth).log2() * per_octave) as u32);
        let mut bins: Vec<(u32, u32)> = keys.iter().map(bin_of).collect();
        bins.sort_unstable();
        bins.dedup();
        let mut class: Vec<Class> = keys
            .iter()
            .map(|key| {
                let bin = bins.partition_point(|bin| *bin < bin_of(key));
                Class { depth: f64::from_bits(key.0), batch: key.1, bin }
            })
            .collect();
        let mut bin: Vec<Bin> = bins.iter().map(|&(batch, _)| Bin { batch, n: 0.0, depth: 0.0 }).collect();
        let mut cells_of = vec![0.0; class.len()];
        for &at in &of_cell {
            if let Some(n) = cells_of.get_mut(at as usize) {
                *n += 1.0;
            }
        }
        let added = (share * typical_depth(&class, &cells_of)).round();
        for (class, n) in class.iter_mut().zip(&cells_of) {
            class.depth += added;
            bin[class.bin].n += n;
            bin[class.bin].depth += n * class.depth;
        }
        Self { of_cell, class, bin, added }
    }

    /// The counts by guide, each with the class of its cell.
    pub fn by_guide(&self, counts: &GuideCounts) -> GuideMajor {
        counts.by_guide_and(|cell| self.of_cell[cell])
    }

    /// What a guide with these counts is seen as: first the zeros by bin, then equal (count, depth, batch) as one row each, sorted;
    /// and the row of every count.
    pub fn observations<'a, M: Mixture>(
        &self,
        m: &M,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> (Vec<Obs>, Vec<u32>) {
        let (rows, mut row_of) = self.group(entries);
        // The zeros are the bins less the cells that have the guide.
        let mut zeros = self.bin.clone();
        let mut counted: Vec<Obs> = Vec::with_capacity(rows.len());
        for (key, n) in rows {
            let (y, class, n) = (f64::from(count_of(key)), &self.class[class_of(key)], f64::from(n));
            zeros[class.bin].n -= n;
            zeros[class.bin].depth -= n * class.depth;
            let &Class { depth, batch, .. } = class;
            counted.push(Obs { y, depth, batch, n, ln_const: m.ln_const(y, depth) });
        }
        let mut obs: Vec<Obs> = zeros
            .iter()
            .filter(|bin| bin.n > 0.0)
            .map(|bin| {
                let depth = bin.depth / bin.n;
                Obs { y: 0.0, depth, batch: bin.batch, n: bin.n, ln_const: m.ln_const(0.0, depth) }
            })
            .collect();
        let n_zeros = obs.len() as u32;
        if n_zeros == 0 && counted.iter().all(|o| o.y + self.added == o.depth) {
            // The guide is all there is in every cell, so depth says nothing of it: the same for all.
            let depth = counted.iter().fold(0.0, |most: f64, o| most.max(o.depth));
            counted.iter_mut().for_each(|o| (o.depth, o.ln_const) = (depth, m.ln_const(o.y, depth)));
        }
        row_of.iter_mut().for_each(|row| *row += n_zeros);
        obs.extend(counted);
        (obs, row_of)
    }

    /// [`mixture::group`] of the counts and classes.
    fn group<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> (Vec<(u64, u32)>, Vec<u32>) {
        // Small counts, which most are, need no sorting: how many of each count and class, and then their row.
        let n_classes = self.class.len();
        let small = (SMALL / n_classes.max(1)) as u32;
        let mut of_small = vec![0u32; small as usize * n_classes];
        let place = |key: u64| (count_of(key) < small).then(|| count_of(key) as usize * n_classes + class_of(key));
        let key = |entry: &Entry| (u64::from(entry.count) << 32) | u64::from(entry.of_cell);
        let keys: Vec<u64> = entries.map(key).collect();
        let mut large = vec![];
        for &key in &keys {
            match place(key) {
                Some(at) => of_small[at] += 1,
                None => large.push(key),
            }
        }
        let mut rows = vec![];
        for (at, n) in of_small.iter_mut().enumerate().filter(|(_, n)| **n > 0) {
            rows.push(((((at / n_classes) as u64) << 32) | (at % n_classes) as u64, *n));
            *n = rows.len() as u32 - 1;
        }
        let (large_rows, large_row_of) = mixture::group(&large);
        let first = rows.len() as u32;
        rows.extend(large_rows);
        let mut large_row_of = large_row_of.into_iter();
        let row = |&key: &u64| match place(key) {
            Some(at) => of_small[at],
            None => first + large_row_of.next().unwrap_or_default(),
        };
        let row_of = keys.iter().map(row).collect();
        (rows, row_of)
    }
}

/// Nine tenths of all UMIs lie in cells of at least this depth; 0 without cells. Classes are sorted by depth.
fn typical_depth(class: &[Class], cells_of: &[f64]) -> f64 {
    let umis = || class.iter().zip(cells_of).map(|(class, n)| n * class.depth);
    let below = (1.0 - CELLS_WITH) * umis().sum::<f64>();
    let mut sum = 0.0;
    let reaches = |umis| {
        sum += umis;
        sum >= below
    };
    umis().position(reaches).map_or(0.0, |at| class[at].depth)
}

fn count_of(key: u64) -> u32 {
    (key >> 32) as u32
}

fn class_of(key: u64) -> usize {
    key as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_borrowed_from_the_typical_cell() {
        // 20 cells of 100 UMIs, 50 of one UMI, one of 200: nine tenths of the 2,250 UMIs are in cells of 100 or more.
        let y: Vec<f64> = [vec![1.0; 50], vec![100.0; 20], vec![200.0]].concat();
        let indptr: Vec<i32> = (0..=71).collect();
        let guides: Vec<i32> = (0..71).map(|cell| cell % 2).collect();
        let counts = GuideCounts::new(2, &indptr, &guides, &y, None).unwrap();
        assert_eq!(DepthClasses::new(&counts, 0.12).added, 12.0);
        assert_eq!(DepthClasses::new(&counts, 0.0).added, 0.0);
        let none = GuideCounts::new(2, &[0, 0], &[], &[], None).unwrap();
        assert_eq!(DepthClasses::new(&none, 0.12).added, 0.0);
    }

    #[test]
    fn rows_are_those_of_sorting() {
        // 600 classes: only counts below 13 are small.
        let (indptr, guides): (Vec<i32>, Vec<i32>) = ((0..=6000).collect(), vec![0; 6000]);
        let y: Vec<f64> = (0..6000).map(|cell| f64::from(1 + (cell * 7919) % 600)).collect();
        let counts = GuideCounts::new(1, &indptr, &guides, &y, None).unwrap();
        let classes = DepthClasses::new(&counts, 0.0);
        let by_guide = classes.by_guide(&counts);
        let entries = || by_guide.guide(0);
        let key = |entry: &Entry| (u64::from(entry.count) << 32) | u64::from(entry.of_cell);
        let keys: Vec<u64> = entries().map(key).collect();
        assert!(classes.class.len() == 600 && keys.iter().any(|&key| count_of(key) < 13));
        assert_eq!(classes.group(entries()), mixture::group(&keys));
        let (naive, row_of) = mixture::group(&[5, 3, 5, 5]);
        assert_eq!((naive, row_of), (vec![(3, 1), (5, 3)], vec![1, 0, 1, 1]));
    }
}
