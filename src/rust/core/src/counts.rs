//! The counts every model works on: shape, invariants, depth and batch of the cells.
//!
//! Work on all counts is split over blocks of cells, or ranges of guides, on the threads of the current pool; results do not
//! depend on how many there are.
use std::ops::Range;

use rayon::prelude::*;

use crate::{Error, Result};

/// UMI counts of guides in cells. Borrowed from the caller: the compressed rows of a cells x guides matrix are the
/// compressed columns of R's guides x cells `dgCMatrix`.
pub struct GuideCounts<'a> {
    n_guides: usize,
    indptr: &'a [i32],
    guides: &'a [i32],
    counts: &'a [f64],
    depth: Vec<f64>,
    batch: Vec<u32>,
    n_batches: usize,
    /// Of each cell, ln of its covariate over the mean; empty without one.
    ln_covariate: Vec<f64>,
}

/// The guide-major view: for each guide its cells in increasing order. In parts, one per thread, each of a range of cells.
pub struct GuideMajor {
    parts: Vec<Part>,
}

struct Part {
    /// Where the entries of each guide start.
    starts: Vec<usize>,
    entries: Vec<Entry>,
    /// The first place of its cells in the cell-major arrays.
    first: usize,
}

/// A stored count of a guide.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Entry {
    /// Its cell, or what was said of that.
    pub of_cell: u32,
    pub count: u32,
    /// Where it stands in the cell-major arrays, to write scores back.
    pub position: u32,
}

/// The counts of a range of guides, numbered from its start, in the cells of all.
pub struct Shard {
    pub indptr: Vec<i32>,
    pub guides: Vec<i32>,
    pub counts: Vec<f64>,
}

/// Cells that a thread takes at once.
pub const BLOCK: usize = 1 << 13;

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
        check_starts(indptr, guides.len(), counts.len())?;
        let n_cells = indptr.len() - 1;
        let mut depth = vec![0.0; n_cells];
        let sound = depth.par_chunks_mut(BLOCK).enumerate().all(|(block, depth)| {
            depth.iter_mut().enumerate().all(|(cell, depth)| {
                let row = row(indptr, block * BLOCK + cell);
                *depth = counts[row.clone()].iter().sum();
                are_sound(n_guides, &guides[row.clone()], &counts[row])
            })
        });
        if !sound {
            return Err(first_fault(n_guides, indptr, guides, counts));
        }
        let batch = batch.unwrap_or_else(|| vec![0; n_cells]);
        if batch.len() != n_cells {
            return Err(Error::Batch(format!("`batch` has {} values for {n_cells} cells.", batch.len())));
        }
        let n_batches = batch.iter().max().map_or(1, |&last| last as usize + 1);
        Ok(Self { n_guides, indptr, guides, counts, depth, batch, n_batches, ln_covariate: vec![] })
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

    /// With the depth of the cells, where they have guides that are not here: at least the UMIs that are.
    pub fn with_depth(mut self, depth: &[f64]) -> Result<Self> {
        let n_cells = self.n_cells();
        if depth.len() != n_cells {
            return Err(Error::Counts(format!("The depth has {} values for {n_cells} cells.", depth.len())));
        }
        if let Some(at) = (0..n_cells).find(|&cell| !(depth[cell].is_finite() && depth[cell] >= self.depth[cell])) {
            let (cell, given, seen) = (at + 1, depth[at], self.depth[at]);
            return Err(Error::Counts(format!("The depth of cell {cell} is {given}, but it has {seen} guide UMIs.")));
        }
        self.depth.copy_from_slice(depth);
        Ok(self)
    }

    /// The counts of these guides alone. Their depth is that of these guides; [`Self::with_depth`] gives it back.
    pub fn shard(&self, guides: Range<usize>) -> Shard {
        let mut shard = Shard { indptr: vec![0], guides: vec![], counts: vec![] };
        for cell in 0..self.n_cells() {
            let row = self.cell(cell);
            let of_cell = &self.guides[row.clone()];
            let from = of_cell.partition_point(|&guide| (guide as usize) < guides.start);
            let to = of_cell.partition_point(|&guide| (guide as usize) < guides.end);
            shard.guides.extend(of_cell[from..to].iter().map(|&guide| guide - guides.start as i32));
            shard.counts.extend_from_slice(&self.counts[row][from..to]);
            shard.indptr.push(shard.guides.len() as i32);
        }
        shard
    }

    pub fn n_cells(&self) -> usize {
        self.indptr.len() - 1
    }

    pub fn n_guides(&self) -> usize {
        self.n_guides
    }

    /// The number of stored counts.
    pub fn n_counts(&self) -> usize {
        self.counts.len()
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
        self.counts
    }

    /// The guide of each stored count.
    pub fn guides(&self) -> &[i32] {
        self.guides
    }

    /// The stored counts of a cell, as a range into [`Self::counts`] and [`Self::guides`].
    pub fn cell(&self, cell: usize) -> Range<usize> {
        row(self.indptr, cell)
    }

    /// All cells, in ranges that a thread takes at once.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let n_cells = self.n_cells();
        (0..n_cells).step_by(BLOCK).map(|first| first..(first + BLOCK).min(n_cells)).collect()
    }

    /// For a cell the place of its largest count among the stored counts, and whether no other is as large; None for an empty cell.
    pub fn largest(&self, cell: usize) -> Option<(usize, bool)> {
        let mut range = self.cell(cell);
        let (mut top, mut is_alone) = (range.next()?, true);
        for at in range {
            if self.counts[at] > self.counts[top] {
                (top, is_alone) = (at, true);
            } else if self.counts[at] == self.counts[top] {
                is_alone = false;
            }
        }
        Some((top, is_alone))
    }

    /// For a cell the place of its largest count; None for a tie or an empty cell.
    pub fn unique_largest(&self, cell: usize) -> Option<usize> {
        self.largest(cell).and_then(|(top, is_alone)| is_alone.then_some(top))
    }

    /// Values of the stored counts that are `none` but for one count of a cell: `of_cell` says where that stands, and its value.
    pub fn one_of_each_cell(&self, none: f64, of_cell: impl Fn(usize) -> Option<(usize, f64)> + Sync) -> Vec<f64> {
        let blocks = self.blocks();
        let places = |cells: &Range<usize>| self.indptr[cells.start] as usize..self.indptr[cells.end] as usize;
        let mut scores = vec![none; self.n_counts()];
        let pieces = pieces(&mut scores, blocks.iter().map(|cells| places(cells).len()));
        pieces.into_par_iter().zip(blocks).for_each(|(piece, cells)| {
            let first = places(&cells).start;
            cells.filter_map(&of_cell).for_each(|(at, score)| piece[at - first] = score);
        });
        scores
    }

    /// Cells with each guide.
    pub fn cells_per_guide(&self) -> Vec<usize> {
        self.per_guide(|n, _| *n += 1, |n, more: usize| *n += more)
    }

    /// What the counts of each guide add up to, in one pass over all: `see` takes one in, `merge` what later cells came to.
    pub fn per_guide<T: Clone + Default + Send>(
        &self,
        see: impl Fn(&mut T, f64) + Sync,
        merge: impl Fn(&mut T, T) + Sync,
    ) -> Vec<T> {
        let none = || vec![T::default(); self.n_guides];
        // Few long pieces, because each has all guides.
        let piece = self.n_counts().div_ceil(rayon::current_num_threads()).max(1);
        let pieces: Vec<Vec<T>> = self
            .guides
            .par_chunks(piece)
            .zip(self.counts.par_chunks(piece))
            .map(|(guides, counts)| {
                let mut of_piece = none();
                guides.iter().zip(counts).for_each(|(&guide, &y)| see(&mut of_piece[guide as usize], y));
                of_piece
            })
            .collect();
        let mut pieces = pieces.into_iter();
        let mut all = pieces.next().unwrap_or_else(none);
        for piece in pieces {
            all.par_iter_mut().zip(piece).with_min_len(1 << 8).for_each(|(all, piece)| merge(all, piece));
        }
        all
    }

    /// The guide-major view, by one counting transpose.
    pub fn by_guide(&self) -> GuideMajor {
        self.by_guide_and(|cell| cell as u32)
    }

    /// The guide-major view with what is said of each cell in the place of its number: looked up here, where cells come in order,
    /// it costs a fraction.
    pub fn by_guide_and(&self, of_cell: impl Fn(usize) -> u32 + Sync) -> GuideMajor {
        let cells = even_ranges(self.indptr, rayon::current_num_threads());
        GuideMajor { parts: cells.into_par_iter().map(|cells| self.part(cells, &of_cell)).collect() }
    }

    fn part(&self, cells: Range<usize>, of_cell: impl Fn(usize) -> u32) -> Part {
        let places = self.indptr[cells.start] as usize..self.indptr[cells.end] as usize;
        let mut starts = vec![0; self.n_guides + 1];
        for &guide in &self.guides[places.clone()] {
            starts[guide as usize + 1] += 1;
        }
        for guide in 0..self.n_guides {
            starts[guide + 1] += starts[guide];
        }
        let mut next = starts.clone();
        let mut entries = vec![Entry::default(); places.len()];
        for cell in cells {
            let of_cell = of_cell(cell);
            for at in self.cell(cell) {
                let slot = &mut next[self.guides[at] as usize];
                entries[*slot] = Entry { of_cell, count: self.counts[at] as u32, position: at as u32 };
                *slot += 1;
            }
        }
        Part { starts, entries, first: places.start }
    }
}

impl GuideMajor {
    /// The stored counts of a guide.
    pub fn guide(&self, guide: usize) -> impl Iterator<Item = &Entry> + Clone {
        self.parts.iter().flat_map(move |part| part.guide(guide))
    }

    /// How many there are.
    pub fn n_cells(&self, guide: usize) -> usize {
        self.parts.iter().map(|part| part.guide(guide).len()).sum()
    }

    /// Values of the stored counts of each guide, `none` where it has none, in cell-major order.
    pub fn in_cell_order(&self, none: f64, values: &[Option<Vec<f64>>]) -> Vec<f64> {
        let mut ordered = vec![none; self.parts.iter().map(|part| part.entries.len()).sum()];
        let pieces = pieces(&mut ordered, self.parts.iter().map(|part| part.entries.len()));
        pieces.into_par_iter().zip(&self.parts).enumerate().for_each(|(at, (piece, part))| {
            let before = &self.parts[..at];
            for (guide, values) in values.iter().enumerate() {
                let Some(values) = values else { continue };
                let skip = before.iter().map(|part| part.guide(guide).len()).sum();
                for (entry, &value) in part.guide(guide).iter().zip(&values[skip..]) {
                    piece[entry.position as usize - part.first] = value;
                }
            }
        });
        ordered
    }
}

impl Part {
    fn guide(&self, guide: usize) -> &[Entry] {
        &self.entries[self.starts[guide]..self.starts[guide + 1]]
    }
}

fn row(indptr: &[i32], cell: usize) -> Range<usize> {
    indptr[cell] as usize..indptr[cell + 1] as usize
}

/// The consecutive pieces of a slice that have these lengths.
pub fn pieces<T>(mut rest: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .map(|n| {
            let (piece, others) = std::mem::take(&mut rest).split_at_mut(n);
            rest = others;
            piece
        })
        .collect()
}

/// Cuts 0..n into `pieces` ranges of about as many entries each, where `starts` has n + 1 starts.
fn even_ranges(starts: &[i32], pieces: usize) -> Vec<Range<usize>> {
    let (n, total) = (starts.len() - 1, starts[starts.len() - 1] as usize);
    let cut = |piece| starts.partition_point(|&start| (start as usize) < total * piece / pieces).min(n);
    let mut cuts: Vec<usize> = (0..pieces).map(cut).collect();
    cuts[0] = 0;
    cuts.push(n);
    cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// Whether this is a whole number from 0 to 2^31 - 1.
pub fn is_count(count: f64) -> bool {
    // The cast saturates, and turns NaN into 0.
    count >= 0.0 && f64::from(count as i32) == count
}

/// Whether the guides of a cell increase and its counts are counts above 0.
fn are_sound(n_guides: usize, guides: &[i32], counts: &[f64]) -> bool {
    let in_range = guides.last().is_none_or(|&last| (last as usize) < n_guides) && guides.first() >= Some(&0);
    let counted = counts.iter().fold(true, |sound, &count| sound & is_count(count) & (count > 0.0));
    counted && (guides.is_empty() || (in_range && guides.windows(2).all(|pair| pair[0] < pair[1])))
}

fn malformed(what: String) -> Error {
    Error::Counts(format!("The matrix of counts is not well formed: {what}."))
}

fn check_starts(indptr: &[i32], n_guides: usize, n_counts: usize) -> Result<()> {
    if indptr.first() != Some(&0) {
        return Err(malformed("the starts of the cells do not begin with 0".into()));
    }
    if let Some(cell) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(malformed(format!("cell {} starts after its end", cell + 1)));
    }
    if n_guides != n_counts || indptr.last().map(|&end| end as usize) != Some(n_counts) {
        let end = indptr.last().copied().unwrap_or(0);
        return Err(malformed(format!(
            "{n_guides} guides and {n_counts} counts are stored, but the last cell ends at {end}"
        )));
    }
    Ok(())
}

/// What is wrong with rows of which at least one is not sound.
fn first_fault(n_guides: usize, indptr: &[i32], guides: &[i32], counts: &[f64]) -> Error {
    for cell in 0..indptr.len() - 1 {
        let guides = &guides[row(indptr, cell)];
        if guides.windows(2).any(|pair| pair[0] >= pair[1]) {
            return malformed(format!("the guides of cell {} do not increase", cell + 1));
        }
        if let Some(guide) = guides.iter().find(|&&guide| guide < 0 || guide as usize >= n_guides) {
            return malformed(format!("cell {} has guide {guide}, but there are {n_guides}, counted from 0", cell + 1));
        }
    }
    match first_bad_count(counts) {
        Some(bad) => Error::Counts(format!("Stored count {} is {}.", bad.position + 1, bad.reason)),
        None => Error::Counts("The matrix of counts stores zeros; drop them first.".into()),
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
    let position = counts.iter().position(|&count| !is_count(count))?;
    let count = counts[position];
    let reason = if count.is_nan() {
        "not a number"
    } else if count < 0.0 {
        "negative"
    } else if count > i32::MAX as f64 {
        "too large"
    } else {
        "not a whole number"
    };
    Some(BadCount { position, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guide_major_view_is_the_transpose() {
        let (p, i, x) = ([0, 2, 2, 4], [0, 2, 1, 2], [3.0, 1.0, 7.0, 5.0]);
        let counts = GuideCounts::new(3, &p, &i, &x, None).unwrap();
        assert_eq!(counts.depth(), [4.0, 0.0, 12.0]);
        let entry = |cell, count, position| Entry { of_cell: cell, count, position };
        let guide = |guide| counts.by_guide().guide(guide).copied().collect::<Vec<Entry>>();
        assert_eq!(guide(2), [entry(0, 1, 1), entry(2, 5, 3)]);
        assert_eq!(guide(0), [entry(0, 3, 0)]);
    }

    /// Against the plain transpose, on threads that share guides of very unequal size.
    #[test]
    fn threads_do_not_change_the_views() {
        let (n_cells, n_guides) = (3 * BLOCK + 5, 37);
        let (mut p, mut i, mut x) = (vec![0], vec![], vec![]);
        for cell in 0..n_cells {
            for guide in 0..n_guides {
                if guide == 3 || (cell * 7 + guide * 11) % (5 + guide) == 0 && guide % 6 != 5 {
                    i.push(guide as i32);
                    x.push((1 + (cell + guide) % 9) as f64);
                }
            }
            p.push(i.len() as i32);
        }
        for threads in [1, 2, 3, 64] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let counts = GuideCounts::new(n_guides, &p, &i, &x, None).unwrap();
                let mut n = vec![0; n_guides];
                let by_guide = counts.by_guide_and(|cell| 2 * cell as u32);
                let mut entries: Vec<_> = (0..n_guides).map(|guide| by_guide.guide(guide)).collect();
                for cell in 0..n_cells {
                    assert_eq!(counts.depth()[cell], x[counts.cell(cell)].iter().sum());
                    for at in counts.cell(cell) {
                        let entry = Entry { of_cell: 2 * cell as u32, count: x[at] as u32, position: at as u32 };
                        assert_eq!(entries[i[at] as usize].next(), Some(&entry));
                        n[i[at] as usize] += 1;
                    }
                }
                let values: Vec<_> = (0..n_guides)
                    .map(|guide| {
                        let places = by_guide.guide(guide).map(|entry| f64::from(entry.position));
                        (guide != 3).then(|| places.collect::<Vec<f64>>())
                    })
                    .collect();
                let ordered = by_guide.in_cell_order(0.0, &values);
                let place = |at: usize| if i[at] == 3 { 0.0 } else { at as f64 };
                assert!(ordered.iter().enumerate().all(|(at, &value)| value == place(at)));
                assert_eq!(n, counts.cells_per_guide());
                assert!(n[5] == 0 && n[3] == n_cells);
            });
        }
    }

    #[test]
    fn shards_are_the_rows_with_the_depth_of_all() {
        let (p, i, x) = ([0, 2, 2, 5], [0, 2, 0, 1, 2], [3.0, 1.0, 4.0, 7.0, 5.0]);
        let counts = GuideCounts::new(3, &p, &i, &x, None).unwrap();
        let shard = counts.shard(1..3);
        assert_eq!((&shard.indptr[..], &shard.guides[..]), (&[0, 1, 1, 3][..], &[1, 0, 1][..]));
        assert_eq!(shard.counts, [1.0, 7.0, 5.0]);
        let new = || GuideCounts::new(2, &shard.indptr, &shard.guides, &shard.counts, None).unwrap();
        assert_eq!(new().depth(), [1.0, 0.0, 12.0]);
        assert_eq!(new().with_depth(counts.depth()).unwrap().depth(), [4.0, 0.0, 16.0]);
        for bad in [&[4.0, 0.0][..], &[0.0, 0.0, 16.0], &[4.0, f64::NAN, 16.0], &[4.0, 0.0, f64::INFINITY]] {
            assert!(new().with_depth(bad).is_err(), "{bad:?}");
        }
        let none = counts.shard(1..1);
        assert_eq!((none.indptr, none.counts), (vec![0; 4], vec![]));
    }

    #[test]
    fn bad_input_is_an_error() {
        let bad = |x: f64| GuideCounts::new(1, &[0, 1], &[0], &[x], None).is_err();
        assert!(bad(f64::NAN) && bad(-1.0) && bad(0.5) && bad(3e9) && bad(0.0) && !bad(2.0));
        assert!(GuideCounts::new(1, &[0, 1], &[1], &[1.0], None).is_err());
        assert!(GuideCounts::new(2, &[0, 2], &[1, 0], &[1.0, 1.0], None).is_err());
        assert!(GuideCounts::new(2, &[0, 2], &[1, 1], &[1.0, 1.0], None).is_err());
        assert!(GuideCounts::new(1, &[0, 1], &[-1], &[1.0], None).is_err());
        for starts in [&[][..], &[1, 1], &[0, 2], &[0, 0], &[0, 1, 0, 1]] {
            assert!(GuideCounts::new(1, starts, &[0], &[1.0], None).is_err(), "{starts:?}");
        }
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
