//! One pass over the cells: the log-likelihood, and what guides and batches learn from it.
use super::cell::Look;
use super::grid::{CAPTURES, EXPOSURES};
use super::lessons::Pair;
use super::nodes::{Grade, Place, CERTAIN, FINE, TRAINING, WIDE};
use super::params::Params;
use super::sample::Sample;
use super::tables::{up_to, Signal, Tables};
use crate::run::Progress;
use crate::Result;
use std::collections::HashMap;
use std::sync::Arc;

/// What a guide learns; see [`super::lessons::Lesson`].
#[derive(Clone, Copy, Default)]
pub struct OfGuide {
    pub carriers: f64,
    pub soup: f64,
    pub signal: f64,
    pub captured: f64,
}

/// What a batch learns.
#[derive(Clone, Copy, Default)]
pub struct OfBatch {
    pub cells: f64,
    /// Cells that are no strays; their exposure and its logarithm, less what the covariate explains.
    pub usual: f64,
    pub exposure: f64,
    pub ln_exposure: f64,
    pub capture: f64,
    pub ln_capture: f64,
    /// What the same sums would be if they were as the prior has them.
    pub expected: Expected,
    /// Ambient UMIs, as guides learn from them, and what could have brought them; signal UMIs likewise.
    pub soup: f64,
    pub reach: f64,
    pub signal: f64,
    pub captured: f64,
}

#[derive(Clone, Copy, Default)]
pub struct Expected {
    pub exposure: f64,
    pub ln_exposure: f64,
    pub capture: f64,
    pub ln_capture: f64,
}

#[derive(Clone)]
pub struct Sums {
    pub ln_lik: f64,
    pub guides: Vec<OfGuide>,
    pub batches: Vec<OfBatch>,
    /// Cells at each node of exposure; those that may carry guides, at each node of capture.
    pub exposures: Vec<f64>,
    pub captures: Vec<f64>,
    /// Cells, and those without any guide.
    pub cells: f64,
    pub empty: f64,
}

impl Sums {
    fn new(n_guides: usize, n_batches: usize, tables: &Tables) -> Self {
        Self {
            ln_lik: 0.0,
            guides: vec![OfGuide::default(); n_guides],
            batches: vec![OfBatch::default(); n_batches],
            exposures: vec![0.0; tables.exposures.len()],
            captures: vec![0.0; tables.captures.len()],
            cells: 0.0,
            empty: 0.0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.ln_lik += other.ln_lik;
        for (to, from) in self.guides.iter_mut().zip(&other.guides) {
            to.carriers += from.carriers;
            to.soup += from.soup;
            to.signal += from.signal;
            to.captured += from.captured;
        }
        for (to, from) in self.batches.iter_mut().zip(&other.batches) {
            to.cells += from.cells;
            to.usual += from.usual;
            to.exposure += from.exposure;
            to.ln_exposure += from.ln_exposure;
            to.capture += from.capture;
            to.ln_capture += from.ln_capture;
            to.expected.exposure += from.expected.exposure;
            to.expected.ln_exposure += from.expected.ln_exposure;
            to.expected.capture += from.expected.capture;
            to.expected.ln_capture += from.expected.ln_capture;
            to.soup += from.soup;
            to.reach += from.reach;
            to.signal += from.signal;
            to.captured += from.captured;
        }
        self.exposures.iter_mut().zip(&other.exposures).for_each(|(a, b)| *a += b);
        self.captures.iter_mut().zip(&other.captures).for_each(|(a, b)| *a += b);
        self.cells += other.cells;
        self.empty += other.empty;
    }

    /// What so many cells of a class say of exposure and capture: masses of nodes of exposure, masses of nodes of capture of
    /// cells that may carry guides, and how many cells are of which capture is not known but for its prior.
    #[allow(clippy::too_many_arguments)]
    fn see(
        &mut self,
        tables: &Tables,
        sample: &Sample,
        class: usize,
        exposure: impl Iterator<Item = (usize, (usize, usize), f64)>,
        capture: impl Iterator<Item = (usize, (usize, usize), f64)>,
        unknown: f64,
    ) {
        let prior = &tables.classes[class];
        let key = &sample.classes[class];
        let batch = &mut self.batches[key.batch];
        let (ln_e, ln_d) = (prior.factors.0.ln(), prior.factors.1.ln());
        let of_exposure = prior.exposure_below[EXPOSURES.n];
        let of_capture = prior.capture_below[CAPTURES.n];
        let before = (batch.usual, batch.cells);
        for (k, (from, to), n) in exposure {
            self.exposures[k] += n;
            batch.cells += n;
            batch.reach += n * tables.exposures[k] * tables.reach[k];
            // Within what a node stands for, mass is as in the prior.
            let (low, high) = (up_to(&prior.exposure_below, from), up_to(&prior.exposure_below, to));
            let each = n / (high[0] - low[0]).max(f64::MIN_POSITIVE);
            let usual = each * (high[1] - low[1]);
            batch.usual += usual;
            batch.exposure += each * (high[2] - low[2]) / prior.factors.0;
            batch.ln_exposure += each * (high[3] - low[3]) - usual * ln_e;
        }
        let learn = |batch: &mut OfBatch, (from, to): (usize, usize), n: f64| {
            let (low, high) = (up_to(&prior.capture_below, from), up_to(&prior.capture_below, to));
            let each = n / (high[0] - low[0]).max(f64::MIN_POSITIVE);
            batch.capture += each * (high[1] - low[1]) / prior.factors.1;
            batch.ln_capture += each * (high[2] - low[2]) - n * ln_d;
        };
        for (l, range, n) in capture {
            self.captures[l] += n;
            learn(batch, range, n);
            batch.captured += n * tables.signal.hidden_capture[l];
        }
        if unknown != 0.0 {
            learn(batch, (0, 2 * CAPTURES.n), unknown);
        }
        let (usual, cells) = (batch.usual - before.0, batch.cells - before.1);
        let usual = usual / of_exposure[1].max(f64::MIN_POSITIVE);
        batch.expected.exposure += usual * of_exposure[2] / prior.factors.0;
        batch.expected.ln_exposure += usual * (of_exposure[3] - of_exposure[1] * ln_e);
        let cells = cells / of_capture[0].max(f64::MIN_POSITIVE);
        batch.expected.capture += cells * of_capture[1] / prior.factors.1;
        batch.expected.ln_capture += cells * (of_capture[2] - of_capture[0] * ln_d);
    }
}

/// The log-likelihood of the sample, of every so many of its cells. `signal` is given where it is as it was.
pub fn ln_lik(
    params: &Params,
    sample: &Sample,
    places: &[Option<Place>],
    every: usize,
    signal: Option<&Arc<Signal>>,
    progress: &Progress,
) -> Result<f64> {
    let tables = Tables::with_signal(params, &sample.classes, signal, false);
    let some: Vec<usize> = (0..sample.patterns.len()).step_by(every).collect();
    let blocks = some.chunks(some.len().div_ceil(64).max(16)).collect();
    let parts = progress.each(blocks, |block: &[usize]| {
        let mut look = Look::default();
        block
            .iter()
            .map(|&at| {
                let (place, n) = sample.patterns[at];
                look.see(params, &tables, sample.cell(place as usize), places[at], TRAINING);
                n * look.ln_lik
            })
            .sum::<f64>()
    })?;
    let mut n = vec![0.0; sample.classes.len()];
    for &at in &some {
        let (place, cells) = sample.patterns[at];
        n[sample.class_of[place as usize] as usize] += cells;
    }
    Ok(parts.iter().sum::<f64>() + of_unseen(&tables, &n))
}

/// The likelihood is that of cells which have UMIs.
fn of_unseen(tables: &Tables, n: &[f64]) -> f64 {
    n.iter().zip(&tables.classes).map(|(n, class)| -n * (-class.zero.probability).ln_1p().max(LEAST_LN)).sum()
}

/// Logarithm of the least probability of having UMIs.
const LEAST_LN: f64 = -40.0;
/// Most unseen cells without UMIs for each that was seen.
const MOST_UNSEEN: f64 = 1e4;

/// A whole pass.
pub fn pass(
    params: &Params,
    sample: &Sample,
    places: &mut [Option<Place>],
    grade: Grade,
    progress: &Progress,
) -> Result<Sums> {
    let tables = Tables::new(params, &sample.classes);
    let (n_guides, n_batches) = (params.n_guides(), params.exposure.len());
    let n_captures = tables.captures.len();
    let mut rest = places;
    let mut blocks = Vec::new();
    for block in Sample::blocks(sample.patterns.len()) {
        let (here, others) = std::mem::take(&mut rest).split_at_mut(block.len());
        rest = others;
        blocks.push((block, here));
    }
    let blocks = progress.each(blocks, |(block, places)| {
        let mut sums = Sums::new(n_guides, n_batches, &tables);
        let mut look = Look::default();
        for (&(place, n), before) in sample.patterns[block].iter().zip(places) {
            let cell = sample.cell(place as usize);
            look.see(params, &tables, cell, *before, grade);
            *before = Some(look.next_place());
            sums.ln_lik += n * look.ln_lik;
            sums.cells += n;
            sums.empty += n * params.shared.empty_weight * look.empty.iter().sum::<f64>();
            let mut of_batch = OfBatch::default();
            look.lessons(&tables, cell, |g, lesson| {
                let guide = &mut sums.guides[g];
                guide.carriers += n * (lesson.carried - lesson.hidden);
                guide.soup += n * lesson.soup;
                guide.signal += n * lesson.signal;
                guide.captured += n * (lesson.captured - lesson.hidden_captured);
                of_batch.soup += n * lesson.soup;
                of_batch.signal += n * lesson.signal;
                of_batch.captured += n * (lesson.captured - lesson.hidden_captured) * params.efficiency[g];
            });
            sums.see(
                &tables,
                sample,
                cell.class,
                look.exposures().map(|(k, range, p)| (k, range, n * p)),
                look.captures().map(|(l, range, p)| (l, range, n * p)),
                n * look.none,
            );
            let batch = &mut sums.batches[sample.classes[cell.class].batch];
            batch.soup += of_batch.soup;
            batch.signal += of_batch.signal;
            batch.captured += of_batch.captured;
        }
        sums
    })?;
    let mut sums = Sums::new(n_guides, n_batches, &tables);
    blocks.iter().for_each(|block| sums.add(block));
    sums.ln_lik += of_unseen(&tables, &sample.with_umis);
    // EM sees the cells without UMIs that the fit expects.
    for class in 0..sample.classes.len() {
        let prior = &tables.classes[class];
        let zero = &prior.zero;
        let unseen = (zero.probability / (1.0 - zero.probability)).clamp(0.0, MOST_UNSEEN);
        let n = sample.with_umis[class] * unseen;
        let none = (params.shared.empty_weight - 1.0) * zero.empty;
        let all = zero.any + none;
        if n == 0.0 || all <= 0.0 {
            continue;
        }
        let nodes = |mass: &[f64], ln: &[f64], (from, to): (usize, usize)| -> Vec<(usize, f64)> {
            let weights: Vec<f64> = (from..to).map(|i| mass[i] * ln[i].exp()).collect();
            let sum: f64 = weights.iter().sum();
            (from..to).zip(weights).map(|(i, w)| (i, w / sum)).collect()
        };
        let exposure = nodes(&prior.exposure, &tables.ln_zero_ambient, tables.exposure_range);
        let capture = nodes(&prior.capture, &tables.signal.ln_zero, tables.capture_range);
        let (any, none) = (n * zero.any / all, n * none / all);
        sums.cells += n;
        sums.empty += n * params.shared.empty_weight * zero.empty / all;
        sums.see(
            &tables,
            sample,
            class,
            exposure.into_iter().map(|(k, p)| (k, (2 * k, 2 * k + 2), n * p)),
            capture.into_iter().map(|(l, p)| (l, (2 * l, 2 * l + 2), any * p)),
            none,
        );
    }
    // Carriers that left no UMI; of the guides with UMIs it was taken off in each cell.
    let r = params.shared.signal_size;
    for (g, guide) in sums.guides.iter_mut().enumerate() {
        for l in tables.capture_range.0..tables.capture_range.1 {
            let n = sums.captures[l];
            if n != 0.0 {
                let at = g * n_captures + l;
                let hidden = n * tables.signal.hidden[at];
                guide.carriers += hidden;
                // d r / (r + d f)
                guide.captured += hidden * r * tables.signal.rate[at] / params.efficiency[g];
            }
        }
        guide.carriers = guide.carriers.max(0.0);
        guide.captured = guide.captured.max(0.0);
    }
    Ok(sums)
}

/// What is known of the cells of a sample in the end.
#[derive(Default)]
pub struct Known {
    /// Of all stored counts, cell by cell.
    pub pairs: Vec<Pair>,
    /// Mean exposure and capture of each cell with UMIs.
    pub effects: Vec<[f64; 2]>,
    /// The same of a cell without UMIs, and expected of any cell, by class.
    pub of_zero: Vec<[f64; 2]>,
    pub expected: Vec<[f64; 2]>,
    pub ln_lik: f64,
}

/// The posteriors of all stored counts of the sample.
pub fn posteriors(params: &Params, sample: &Sample, progress: &Progress) -> Result<Known> {
    let tables = Tables::exact(params, &sample.classes);
    let expected_capture: Vec<f64> = tables
        .classes
        .iter()
        .map(|prior| prior.capture.iter().zip(&tables.captures).map(|(p, d)| p * d).sum())
        .collect();
    let blocks = progress.each(Sample::blocks(sample.cells.len()), |block| {
        let mut look = Look::default();
        let mut known = Known::default();
        // Cells with one and the same count are alike.
        let mut seen: HashMap<(usize, i32, u64), (usize, usize)> = HashMap::new();
        for place in block {
            let cell = sample.cell(place);
            let key = (cell.class, cell.guides[0], cell.umis[0] as u64);
            if cell.guides.len() == 1 {
                if let Some(&(pair, effect)) = seen.get(&key) {
                    known.pairs.push(known.pairs[pair]);
                    known.effects.push(known.effects[effect]);
                    continue;
                }
                seen.insert(key, (known.pairs.len(), known.effects.len()));
            }
            look.see(params, &tables, cell, None, WIDE);
            let first = known.pairs.len();
            look.pairs(&tables, cell, |pair| known.pairs.push(pair));
            if known.pairs[first..].iter().any(|pair| pair.ln_odds.abs() < CERTAIN) {
                look.see_again(params, &tables, cell, FINE);
                known.pairs.truncate(first);
                look.pairs(&tables, cell, |pair| known.pairs.push(pair));
            }
            let mean = |nodes: &mut dyn Iterator<Item = (usize, f64)>, at: &[f64]| {
                let (sum, all) = nodes.fold((0.0, 0.0), |(sum, all), (i, p)| (sum + p * at[i], all + p));
                sum / all.max(f64::MIN_POSITIVE)
            };
            let exposure = mean(&mut look.exposures().map(|(k, _, p)| (k, p)), &tables.exposures);
            // A cell without any guide says nothing of its capture.
            let (all, of_any) =
                look.captures().fold((0.0, 0.0), |(all, sum), (l, _, p)| (all + p, sum + p * tables.captures[l]));
            let capture = (of_any + look.none * expected_capture[cell.class]) / (all + look.none);
            known.effects.push([exposure, capture]);
            known.ln_lik += look.ln_lik;
        }
        known
    })?;
    let mut all = Known::default();
    for (prior, key) in tables.classes.iter().zip(&sample.classes) {
        let mean = |mass: &[f64], zero: &[f64], at: &[f64]| {
            let sum = |f: &dyn Fn(usize) -> f64| (0..mass.len()).map(|i| mass[i] * zero[i] * f(i)).sum::<f64>();
            sum(&|i| at[i]) / sum(&|_| 1.0).max(f64::MIN_POSITIVE)
        };
        let batch = key.batch;
        let none = (params.shared.empty_weight - 1.0) * prior.zero.empty;
        let expected = params.capture[batch] * prior.factors.1;
        let of_any = mean(&prior.capture, &tables.signal.zero, &tables.captures);
        all.of_zero.push([
            mean(&prior.exposure, &tables.zero_ambient, &tables.exposures),
            (prior.zero.any * of_any + none * expected) / (prior.zero.any + none).max(f64::MIN_POSITIVE),
        ]);
        all.expected.push([params.exposure[batch] * prior.factors.0, params.capture[batch] * prior.factors.1]);
    }
    all.pairs.reserve(sample.n_counts);
    for block in blocks {
        all.pairs.extend(block.pairs);
        all.effects.extend(block.effects);
        all.ln_lik += block.ln_lik;
    }
    Ok(all)
}
