//! ambient: one generative model of the whole matrix, learnt from all guides and cells together.
//!
//! The count of guide g in cell c of batch b, with z = 1 if the cell carries the guide, is y = B + z S:
//!
//!   B ~ NB(mean e_c q_g + h (D_c - y) l_g, size a)   soup, of heavy tail, and chimeras of the cell's other molecules
//!   S ~ NB(mean d_c f_g, size r)                     signal
//!   e_c ~ gamma(shape s, mean A_b x_c^beta)          ambient exposure of the cell, UMIs
//!   d_c ~ gamma(shape k, mean d_b x_c^gamma)         capture of the cell; d_b is 1 on average
//!   q_g, f_g ~ gamma                                 ambient share and efficiency, shrunken across guides
//!   z ~ Bernoulli(pi_g), the cell without any guide reweighted by w; pi_g ~ beta, shrunken across guides
//!
//! l_g is the guide's share of all UMIs; x_c a covariate of the cell over its mean, 1 without one. Each pair is judged by what the *other* guides of the cell say of e_c and d_c
//! (leave one out): B and S are then predicted with e_c and d_c integrated out, which for the gamma posteriors is again
//! a negative binomial in mean and variance. So no guide is explained away by its own count. w couples the guides of a
//! cell: where hardly any cell is without a guide, a cell's best candidate is believed sooner.
//!
//! Guides and cells are updated by their closed-form EM steps; a, r, s, k, h, beta and gamma, of which there is one each, by
//! a search on the predictive log-likelihood. Sums run over fixed blocks of cells, so threads do not change a bit.
//!
//! Shrinkage of a guide across guides is new here. The soup as a negative binomial with cell exposures: Fleming et al.
//! 2023 (CellBender, doi:10.1038/s41592-023-01943-7).
use super::poisson_gauss::PoissonGauss;
use super::{bounded_log_odds, Control, DefaultRule, Model, ModelInfo, Scores, MOST_LOG_ODDS};
use crate::counts::GuideCounts;
use crate::fit::{Column, Columns, FitRow, FitTable, Status};
use crate::mixture;
use crate::run::Progress;
use crate::special::{exp_m1, ln_1p, ln_factorial, ln_gamma, LnSum};
use crate::Result;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::OnceLock;

/// Cells that are summed together; fixes the order of sums. More where there are more than [`BLOCKS`] of these.
const BLOCK: usize = 512;
const BLOCKS: usize = 64;
/// Cells the shared parameters are learnt from, and those the search looks at; more say nothing new of them.
const TRAINING_CELLS: usize = 20_000;
const SEARCH_CELLS: usize = 5_000;
/// Stored counts, and least cells, that it looks at until the fit is near.
const FIRST_COUNTS: usize = 20_000;
const FEWEST_CELLS: usize = 1_000;
/// Most rounds of EM, and how many each start gets.
const ROUNDS: usize = 100;
const SHORT_ROUNDS: usize = 8;
/// Two starts whose parameters differ by less than this share after so many rounds are on the same way: one of them goes on.
const FIRST_ROUNDS: usize = 4;
const SAME: f64 = 0.05;
/// The soup alone is fitted to the end where its log-likelihood is within this share of the model's; and no further than a start
/// where it is off by more than that.
const CLOSE: f64 = 0.05;
const FAR: f64 = 0.5;
/// Rounds on more than the training cells: where these are very many, all but the last on one in `LAST_SHARE`.
const LAST_ROUNDS: usize = 4;
const LAST_SHARE: usize = 8;
/// Near, and converged: two searches in a row gained less than this of the log-likelihood.
const NEAR: f64 = 2e-4;
const GAIN: f64 = 2e-5;
/// A cell is settled when no posterior, and no sum relative to 1 and itself, is expected to change by more in all looks to come;
/// and the most looks until then.
const SETTLED: f64 = 1e-11;
const SETTLED_SUMS: f64 = 1e-7;
const LOOKS: usize = 200;
/// What of a change is expected to be left after another look, at least and at most.
const LEAST_SHARE: f64 = 0.1;
const MOST_SHARE: f64 = 0.99;
/// First guesses of what is carried look no higher.
const HIGHEST_CUT: u32 = 50;
/// How far ahead of a step a cell is looked at, in steps.
const LEAST_AHEAD: f64 = -0.5;
const MOST_AHEAD: f64 = 10.0;
/// Rows of what a zero hides, by capture; bins of guides by ambient share and, per e-fold, of cells by exposure.
const ROWS: usize = 32;
/// Rows that more than this share of the cells ask for are made beforehand.
const USUAL: f64 = 0.005;
const SHARE_BINS: usize = 64;
const EXPOSURE_BINS: usize = 4;
/// Counts above this are not summed over the background's part: so many UMIs are all but certain either way.
const LONGEST_SUM: f64 = 5000.0;
/// Rising factorials of so many factors are multiplied out before a logarithm is taken, and at all.
const FEW_FACTORS: f64 = 12.0;
const MANY_FACTORS: f64 = 48.0;
/// Odds of less against a guide do not change a posterior.
const CERTAIN: f64 = 1e-20;
/// What r and k are drawn to, and by how many nats per cell for a factor of e. Cells without any guide and carriers that
/// left no UMI look alike: without this the fit may explain all of the former by small r and k.
const RIDGE: (f64, f64, f64) = (2.0, 8.0, 0.05);
/// Least mean signal, UMIs.
const LEAST_SIGNAL: f64 = 2.0;
/// Bounds of a, r, s, k, h, beta and gamma. Shapes below these would say that cells have nothing in common.
const BOUNDS: [(f64, f64); SHARED] =
    [(0.05, 1e3), (0.2, 1e3), (0.3, 1e3), (0.5, 1e3), (1e-5, 0.5), (0.0, 1.5), (0.0, 1.5)];
/// First and least steps of the search; of all but the slopes in logs.
const STEPS: [f64; SHARED] = [0.5, 0.35, 0.5, 0.5, 0.7, 0.4, 0.4];
const LEAST_STEP: f64 = 0.02;
/// Looks at each cell before h is judged.
const LOOKS_AHEAD: usize = 4;

pub struct Ambient;

impl Model for Ambient {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "ambient",
            family: "mixture",
            unit: "screen",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.5),
            uses_batch: true,
            uses_depth: true,
            about:
                "the whole matrix at once: ambient and chimeric UMIs per cell, signal per guide, shrunken across guides",
            when: "Whenever it can be afforded: needs no choice, best on hard data, also for guides in few cells.",
        }
    }

    fn uses_covariate(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        let n_cells = counts.n_cells();
        let seen = Seen::each_guide(counts);
        let gates: Vec<Option<FitRow>> =
            seen.iter().map(|guide| mixture::gate(guide.cells, guide.largest as u32, control)).collect();
        let gated: Vec<bool> = gates.iter().map(Option::is_some).collect();
        if gated.iter().all(|&g| g) {
            let rows: Vec<FitRow> =
                gates.into_iter().flatten().enumerate().map(|(unit, row)| FitRow { unit, ..row }).collect();
            let n_log_odds = if control.log_odds { counts.n_counts() } else { 0 };
            return Ok(Scores {
                score: vec![0.0; counts.n_counts()],
                log_odds: vec![-MOST_LOG_ODDS; n_log_odds],
                fits: FitTable::of_units("guide", &names(), &rows),
                screen: screen_table(None, counts),
                ..Scores::default()
            });
        }
        // Every k-th cell, so that all lanes are there.
        let training = Sample::new(counts, (0..n_cells).step_by(n_cells.div_ceil(TRAINING_CELLS).max(1)));
        let (start, by_share) = (training.each_guide(control, progress)?, training.by_share());
        let all_umis: f64 = seen.iter().map(|guide| guide.umis).sum();
        let library: Vec<f64> = seen.iter().map(|guide| guide.umis / all_umis).collect();
        let mut run = {
            let mut one = Run::new(&training, &library, &start, &gated, false, progress)?;
            let mut other = Run::new(&training, &library, &by_share, &gated, false, progress)?;
            for most in [FIRST_ROUNDS, SHORT_ROUNDS] {
                one.climb(&training, NEAR, most, &gated, progress)?;
                other.climb(&training, NEAR, most, &gated, progress)?;
                if one.fit.is_near(&other.fit) {
                    break;
                }
            }
            if other.fit.log_lik > one.fit.log_lik {
                other
            } else {
                one
            }
        };
        run.climb(&training, NEAR, ROUNDS, &gated, progress)?;
        run.climb(&training, GAIN, ROUNDS, &gated, progress)?;
        // Whether there is any signal at all: the same screen as soup and chimeras alone.
        let no_carriers = vec![0.0; training.n_counts()];
        let mut soup = Run::new(&training, &library, &no_carriers, &gated, true, progress)?;
        soup.climb(&training, NEAR, SHORT_ROUNDS, &gated, progress)?;
        if soup.fit.log_lik > (1.0 + FAR) * run.fit.log_lik {
            soup.climb(&training, NEAR, ROUNDS, &gated, progress)?;
        }
        if soup.fit.log_lik > (1.0 + CLOSE) * run.fit.log_lik {
            soup.climb(&training, GAIN, ROUNDS, &gated, progress)?;
        }
        let live = gated.iter().filter(|&&g| !g).count();
        // Prior and efficiency of each guide, size and capture shape of the signal, weight of the empty cell.
        let penalty = (2 * live + 3) as f64 * (training.cells.len() as f64).ln();
        run.fit.bic_gain = 2.0 * (run.fit.log_lik - soup.fit.log_lik) - penalty;
        drop(soup);
        if training.cells.len() < n_cells {
            // Guides that few of the training cells carry learn from more, in the end from all.
            let few = n_cells < LAST_SHARE * TRAINING_CELLS;
            let some = Sample::new(counts, (0..n_cells).step_by(if few { 1 } else { LAST_SHARE }));
            run.meet(&some, &gated, progress)?;
            for _ in 2..LAST_ROUNDS {
                run.round::<false>(&some, Before::Look, &gated, progress)?;
            }
            let all = if few {
                run.round::<false>(&some, Before::Look, &gated, progress)?;
                some
            } else {
                let all = Sample::new(counts, 0..n_cells);
                run.meet(&all, &gated, progress)?;
                all
            };
            run.settle::<false>(&all, progress)?;
            if control.log_odds {
                run.find_log_odds(&all, progress)?;
            }
        } else {
            run.settle::<true>(&training, progress)?;
            if control.log_odds {
                run.find_log_odds(&training, progress)?;
            }
        }
        let Run { fit, sums, scale, posterior, mut log_odds, .. } = run;
        let no_signal = fit.why_no_signal(&gated);
        let rows = fit.rows(counts, &gates, no_signal);
        let mut score = posterior;
        for (value, &guide) in score.iter_mut().zip(counts.guides()) {
            if gated[guide as usize] || no_signal.is_some() {
                *value = 0.0;
            }
        }
        for (value, &guide) in log_odds.iter_mut().zip(counts.guides()) {
            if gated[guide as usize] || no_signal.is_some() {
                *value = -MOST_LOG_ODDS;
            }
        }
        Ok(Scores {
            score,
            log_odds,
            fits: FitTable::of_units("guide", &names(), &rows),
            cells: fit.cell_table(counts, &sums, &scale),
            screen: screen_table(Some(&fit), counts),
        })
    }
}

/// The parameters of a guide.
fn names() -> Vec<String> {
    ["prior", "ambient_share", "efficiency"].map(String::from).to_vec()
}

/// What all guides share, and how the fit went; missing without one.
fn screen_table(fit: Option<&Fit>, counts: &GuideCounts) -> Columns {
    let names = [
        "ambient_size",
        "signal_size",
        "exposure_shape",
        "capture_shape",
        "hopping",
        "exposure_slope",
        "capture_slope",
    ];
    let real = |name: &str, value: Option<f64>| (name.to_string(), Column::Real(vec![value.unwrap_or(f64::NAN)]));
    let of_search = names.iter().enumerate().map(|(i, name)| {
        let is_found = counts.has_covariate() || !(i == EXPOSURE_SLOPE || i == CAPTURE_SLOPE);
        real(name, fit.filter(|_| is_found).map(|fit| fit.shared[i]))
    });
    let mut columns: Columns = of_search.collect();
    columns.extend([
        real("empty_weight", fit.map(|fit| fit.empty)),
        real("log_lik", fit.map(|fit| fit.log_lik)),
        real("bic_gain", fit.map(|fit| fit.bic_gain)),
        ("iterations".to_string(), Column::Integer(vec![fit.map(|fit| fit.rounds as i32)])),
        ("converged".to_string(), Column::Logical(vec![fit.map(|fit| fit.converged)])),
    ]);
    columns
}

/// The stored counts of a guide, without sorting them by guide, which nothing here needs.
#[derive(Clone, Copy, Default)]
struct Seen {
    cells: usize,
    largest: f64,
    umis: f64,
}

impl Seen {
    fn each_guide(counts: &GuideCounts) -> Vec<Self> {
        // Sums of whole numbers do not depend on their order.
        counts.per_guide(|seen, y| seen.add(Self { cells: 1, largest: y, umis: y }), Self::add)
    }

    fn add(&mut self, other: Self) {
        self.cells += other.cells;
        self.largest = self.largest.max(other.largest);
        self.umis += other.umis;
    }
}

/// The shared parameters that are searched for, by index.
const AMBIENT_SIZE: usize = 0;
const SIGNAL_SIZE: usize = 1;
const EXPOSURE_SHAPE: usize = 2;
const CAPTURE_SHAPE: usize = 3;
const HOPPING: usize = 4;
const EXPOSURE_SLOPE: usize = 5;
const CAPTURE_SLOPE: usize = 6;
const SHARED: usize = 7;

#[derive(Clone)]
struct Fit {
    /// a, r, s, k, h, beta, gamma.
    shared: [f64; SHARED],
    prior: Vec<f64>,
    /// Ambient share of each guide; sums to 1.
    share: Vec<f64>,
    efficiency: Vec<f64>,
    /// Of all UMIs.
    library: Vec<f64>,
    /// Mean exposure and capture of each batch.
    exposure: Vec<f64>,
    capture: Vec<f64>,
    /// Weight of the cell without any guide.
    empty: f64,
    /// Signal UMIs, weighted as in [`CellSums`], that tell of the capture of a typical cell.
    known_signal: f64,
    /// Rows of the zero table that most cells asked for in the last round.
    usual_rows: Range<usize>,
    /// No guide is carried by any cell.
    soup_only: bool,
    /// BIC of the soup alone less BIC of the model.
    bic_gain: f64,
    log_lik: f64,
    rounds: usize,
    converged: bool,
}

/// What the guides of a cell say of its exposure and capture.
#[derive(Clone, Copy, Default)]
struct CellSums {
    /// Background UMIs and the shares that could bring them, both weighted by a / (a + mean).
    background: f64,
    share: f64,
    /// Signal UMIs and the efficiencies that could bring them, both weighted by r / (r + mean).
    signal: f64,
    efficiency: f64,
}

impl CellSums {
    /// To `learnt`, relative to 1 and itself.
    fn change(&self, learnt: &Self) -> [f64; 4] {
        let change = |from: f64, to: f64| (to - from) / (1.0 + to);
        [
            change(self.background, learnt.background),
            change(self.share, learnt.share),
            change(self.signal, learnt.signal),
            change(self.efficiency, learnt.efficiency),
        ]
    }

    /// So many times further along the way from `last`: what tells of the exposure, and of the capture.
    fn look_ahead(&mut self, last: &Self, times: [f64; 2]) {
        let ahead = |now: &mut f64, last: f64, times: f64| *now = (*now + times * (*now - last)).max(0.0);
        ahead(&mut self.background, last.background, times[0]);
        ahead(&mut self.share, last.share, times[0]);
        ahead(&mut self.signal, last.signal, times[1]);
        ahead(&mut self.efficiency, last.efficiency, times[1]);
    }
}

/// The sums of all cells, and what each stored count put into them.
struct Sums {
    cell: Vec<CellSums>,
    own: Vec<CellSums>,
}

impl Sums {
    fn new(n_cells: usize, n_counts: usize) -> Self {
        // Memory that is new is slow to be touched, so all threads do it.
        let all = |n| rayon::iter::repeat_n(CellSums::default(), n).with_min_len(1 << 14).collect();
        Self { cell: all(n_cells), own: all(n_counts) }
    }
}

/// Cells that are looked at together, and where the stored counts of each start among those of all.
struct Sample<'a> {
    counts: &'a GuideCounts<'a>,
    cells: Vec<usize>,
    starts: Vec<usize>,
}

impl<'a> Sample<'a> {
    fn new(counts: &'a GuideCounts<'a>, cells: impl Iterator<Item = usize>) -> Self {
        let cells: Vec<usize> = cells.collect();
        let mut starts = vec![0];
        for &cell in &cells {
            starts.push(starts[starts.len() - 1] + counts.cell(cell).len());
        }
        Self { counts, cells, starts }
    }

    fn n_counts(&self) -> usize {
        self.starts[self.cells.len()]
    }

    /// Posteriors to start from: of each guide by itself.
    fn each_guide(&self, control: &Control, progress: &Progress) -> Result<Vec<f64>> {
        let places = self.cells.iter().flat_map(|&cell| self.counts.cell(cell));
        let (guides, y): (Vec<i32>, Vec<f64>) =
            places.map(|at| (self.counts.guides()[at], self.counts.counts()[at])).unzip();
        let indptr: Vec<i32> = self.starts.iter().map(|&start| start as i32).collect();
        let counts = GuideCounts::new(self.counts.n_guides(), &indptr, &guides, &y, None)?;
        let control = Control { log_odds: false, ..control.clone() };
        Ok(mixture::score_counts(&PoissonGauss, &counts, &control, progress)?.score)
    }

    /// And by the guide's share of its cell.
    fn by_share(&self) -> Vec<f64> {
        let mut start = Vec::with_capacity(self.n_counts());
        for &cell in &self.cells {
            let least = (0.2 * self.counts.depth()[cell]).max(2.0);
            start.extend(self.counts.cell(cell).map(|at| f64::from(u8::from(self.counts.counts()[at] >= least))));
        }
        start
    }

    /// The cells that the search looks at: some, every k-th.
    fn some(&self, few: bool) -> Vec<usize> {
        let n = self.cells.len();
        let mut step = n.div_ceil(SEARCH_CELLS).max(1);
        if few {
            step = step.max(self.n_counts().div_ceil(FIRST_COUNTS)).min(n.div_ceil(FEWEST_CELLS)).max(1);
        }
        (0..n).step_by(step).collect()
    }

    fn block(&self) -> usize {
        BLOCK.max(self.cells.len().div_ceil(BLOCKS))
    }

    /// One slice of the sums, and of the stored counts, for each block of cells; and the first cell of the block.
    fn blocks<'s, T>(&self, sums: &'s mut Sums, mut of_counts: &'s mut [T]) -> Vec<Block<'s, T>> {
        let mut own = sums.own.as_mut_slice();
        let mut first = 0;
        sums.cell
            .chunks_mut(self.block())
            .map(|cell| {
                let n = self.starts[first + cell.len()] - self.starts[first];
                let (own_here, own_rest) = std::mem::take(&mut own).split_at_mut(n);
                let some = n.min(of_counts.len());
                let (here, rest) = std::mem::take(&mut of_counts).split_at_mut(some);
                (own, of_counts) = (own_rest, rest);
                let block = Block { first, cell, own: own_here, of_counts: here };
                first += block.cell.len();
                block
            })
            .collect()
    }
}

struct Block<'s, T> {
    first: usize,
    cell: &'s mut [CellSums],
    own: &'s mut [CellSums],
    of_counts: &'s mut [T],
}

impl<T> Block<'_, T> {
    /// Each cell by its place in the sample, its sums, what its stored counts put into them, and their part of
    /// what was given of the stored counts, if it was.
    fn each(self, sample: &Sample, mut f: impl FnMut(usize, &mut CellSums, &mut [CellSums], &mut [T])) {
        let start = sample.starts[self.first];
        for (place, sums) in (self.first..).zip(self.cell) {
            let here = sample.starts[place] - start..sample.starts[place + 1] - start;
            let of_counts = if self.of_counts.is_empty() { &mut [] } else { &mut self.of_counts[here.clone()] };
            f(place, sums, &mut self.own[here], of_counts);
        }
    }
}

/// What a zero hides, for captures on a geometric grid: per guide, and over all guides. Between rows it is interpolated. Rows are
/// made when a cell first asks for them: most captures are near 1.
struct ZeroTable {
    ln_low: f64,
    step: f64,
    signal_size: f64,
    /// Of the signal of a guide that is carried in a cell of typical signal.
    size: f64,
    rows: [OnceLock<ZeroRow>; ROWS],
}

struct ZeroRow {
    capture: f64,
    /// Per guide: ln P(not carried | zero), and ln P(zero of the signal part).
    ln_not: Vec<f64>,
    ln_seen: Vec<f64>,
    not_carried_sum: f64,
    zero_sum: f64,
    /// Expected efficiency of hidden carriers, weighted as in [`CellSums`].
    efficiency_sum: f64,
}

/// Between which rows a capture lies.
struct Between<'a> {
    row: usize,
    weight: f64,
    low: &'a ZeroRow,
    high: &'a ZeroRow,
}

impl ZeroTable {
    fn at(&self, fit: &Fit, capture: f64) -> Between<'_> {
        let at = ((capture.ln() - self.ln_low) / self.step).clamp(0.0, (ROWS - 1) as f64);
        let row = (at as usize).min(ROWS - 2);
        Between { row, weight: at - row as f64, low: self.row(fit, row), high: self.row(fit, row + 1) }
    }

    fn row(&self, fit: &Fit, i: usize) -> &ZeroRow {
        self.rows[i].get_or_init(|| {
            let (size, signal_size) = (self.size, self.signal_size);
            let capture = (self.ln_low + self.step * i as f64).exp();
            let n_guides = fit.prior.len();
            let (mut all_not, mut all_seen) = (Vec::with_capacity(n_guides), Vec::with_capacity(n_guides));
            let (mut zero_sum, mut not_carried_sum, mut efficiency_sum) = (0.0, 0.0, 0.0);
            for (&pi, &f) in fit.prior.iter().zip(&fit.efficiency) {
                let no_signal = (-size * ln_1p(capture * f / size)).exp();
                let not_seen = pi * (1.0 - no_signal);
                let seen = 1.0 - not_seen;
                // P(not carried | zero) = (1 - pi) / seen.
                let ln_seen = ln_1p(-not_seen);
                let ln_not = ln_1p(-pi) - ln_seen;
                zero_sum += ln_seen;
                not_carried_sum += ln_not;
                efficiency_sum += pi * no_signal / seen * f * signal_size / (signal_size + capture * f);
                all_not.push(ln_not);
                all_seen.push(ln_seen);
            }
            ZeroRow { capture, ln_not: all_not, ln_seen: all_seen, not_carried_sum, zero_sum, efficiency_sum }
        })
    }
}

impl Between<'_> {
    fn of(&self, value: impl Fn(&ZeroRow) -> f64) -> f64 {
        (1.0 - self.weight) * value(self.low) + self.weight * value(self.high)
    }
}

/// Sums over the ambient shares q of all guides, as functions of ln x: sum q / (1 + x q), its slope, and
/// sum ln(1 + x q) / x. Between knots by cubic Hermite interpolation.
struct ShareTable {
    knots: Vec<[f64; 3]>,
}

impl ShareTable {
    const LN_LOW: f64 = -18.0;
    const STEP: f64 = 0.0625;
    const KNOTS: usize = 576;

    fn new(shares: &[f64]) -> Self {
        let bins = bin(shares);
        let knots = (0..Self::KNOTS)
            .map(|i| {
                let x = (Self::LN_LOW + Self::STEP * i as f64).exp();
                let mut sums = [0.0; 3];
                for &(q, n) in &bins {
                    let all = 1.0 / (1.0 + x * q);
                    sums[0] += n * q * all;
                    sums[1] -= n * q * x * q * all * all;
                    sums[2] += n * ln_1p(x * q) / x;
                }
                sums
            })
            .collect();
        Self { knots }
    }

    fn at(&self, x: f64) -> (usize, f64) {
        let at = ((x.ln() - Self::LN_LOW) / Self::STEP).clamp(0.0, (Self::KNOTS - 1) as f64);
        let knot = (at as usize).min(Self::KNOTS - 2);
        (knot, at - knot as f64)
    }

    fn hermite(t: f64, low: (f64, f64), high: (f64, f64)) -> f64 {
        let (u, d0, d1) = (1.0 - t, low.1 * Self::STEP, high.1 * Self::STEP);
        u * u * ((1.0 + 2.0 * t) * low.0 + t * d0) + t * t * ((3.0 - 2.0 * t) * high.0 - u * d1)
    }

    /// sum q / (1 + x q).
    fn reach(&self, x: f64) -> f64 {
        let (knot, t) = self.at(x);
        let (low, high) = (self.knots[knot], self.knots[knot + 1]);
        Self::hermite(t, (low[0], low[1]), (high[0], high[1]))
    }

    /// sum ln(1 + x q).
    fn ln_all(&self, x: f64) -> f64 {
        let (knot, t) = self.at(x);
        let (low, high) = (self.knots[knot], self.knots[knot + 1]);
        x * Self::hermite(t, (low[2], low[0] - low[2]), (high[2], high[0] - high[2]))
    }
}

/// Values put into bins of equal numbers: the mean of each bin and its number.
fn bin(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let each = sorted.len().div_ceil(SHARE_BINS).max(1);
    sorted.chunks(each).map(|chunk| (chunk.iter().sum::<f64>() / chunk.len() as f64, chunk.len() as f64)).collect()
}

/// What is thought of a count.
struct Judged {
    /// Probability that the cell carries the guide, and that it does not.
    carried: f64,
    not: f64,
    odds_not: f64,
    /// Their logarithm, where they may underflow.
    ln_odds_not: f64,
    /// Background UMIs expected of it if the guide is carried.
    both: f64,
}

impl Judged {
    const NEVER: Self =
        Judged { carried: 0.0, not: 1.0, odds_not: f64::INFINITY, ln_odds_not: f64::INFINITY, both: 0.0 };

    fn new(odds_not: f64, both: f64) -> Self {
        let carried = 1.0 / (1.0 + odds_not);
        // Without the digits that 1 - carried would lose.
        let not = if odds_not < f64::INFINITY { odds_not * carried } else { 1.0 };
        Self { carried, not, odds_not, ln_odds_not: f64::NAN, both }
    }

    /// Their logarithm, of a look that needs it.
    fn ln_odds_not(&self) -> f64 {
        if self.odds_not > f64::MIN_POSITIVE {
            self.odds_not.ln()
        } else {
            self.ln_odds_not
        }
    }

    fn from_ln(ln_odds_not: f64, both: f64) -> Self {
        Self { ln_odds_not, ..Self::new(ln_odds_not.exp(), both) }
    }

    /// Adds how much more likely the count is than if the guide were certain not to be carried.
    fn add_more(&self, ln: &mut LnSum) {
        if self.odds_not > f64::MIN_POSITIVE {
            ln.times(1.0 + 1.0 / self.odds_not);
        } else {
            ln.add(-self.ln_odds_not);
        }
    }
}

impl LnSum {
    /// rate^y Gamma(size + y) / (Gamma(size) y!), what a negative binomial's mass at y has over that at 0.
    fn rise(&mut self, y: f64, rate: f64, size: f64) {
        if y > FEW_FACTORS {
            self.add(y * rate.ln() + ln_gamma(size + y) - ln_gamma(size) - ln_factorial(y));
            return;
        }
        let (mut above, mut below) = (1.0, 1.0);
        let mut j = 0.0;
        while j < y {
            above *= rate * (size + j);
            j += 1.0;
            below *= j;
        }
        self.times(above / below);
    }
}

/// `ln_odds_not` are those of a cell of which nothing is known. Without `LIK`, odds that are too small to change a posterior are 0.
fn judge<const LIK: bool>(ln_odds_not: f64, y: f64, mean: f64, size: f64, signal: f64, signal_size: f64) -> Judged {
    let ln_odds_of_zero = ln_odds_not - ln_zero(signal, signal_size);
    if y == 1.0 {
        // Most counts. Background and signal of it, both times both denominators.
        let (background, signal) = (mean * size * (signal_size + signal), signal * signal_size * (size + mean));
        let share = background / (background + signal);
        return Judged::new(ln_odds_of_zero.exp() * share, share);
    }
    let back = mean / (size + mean);
    if y > LONGEST_SUM {
        // One negative binomial with the mean and variance of the sum stands for it.
        let both = mean + signal;
        let both_size = both * both / (mean * mean / size + signal * signal / signal_size);
        let ln_both = ln_nb(y, both, both_size) - ln_zero(mean, size);
        return Judged::from_ln(ln_odds_not + ln_rise(y, back, size) - ln_both, y * mean / both);
    }
    let fore = signal / (signal_size + signal);
    // Sum over the background's part j of the count, by ratios of neighbouring masses, relative to j = 0.
    let factor = back / fore;
    let (mut term, mut sum, mut first) = (1.0, 1.0, 0.0);
    let mut ln_scale = 0.0;
    for n in 1..=y as u32 {
        let j = f64::from(n);
        let k = y - j;
        term *= factor * (size + j - 1.0) * (k + 1.0) / (j * (signal_size + k));
        sum += term;
        first += term * j;
        if n % 4 == 0 {
            // Bounds the ratio of all terms to come but for the signal's ratios, whose product is below 1 + k / r.
            let ratio = factor * ((size + j) / (j + 1.0)).max(1.0);
            if ratio < 0.9 && term * (1.0 + k / signal_size) * y < 1e-14 * sum {
                break;
            }
            if sum > 1e150 {
                ln_scale += sum.ln();
                (term, sum, first) = (term / sum, 1.0, first / sum);
            }
        }
    }
    let both = first / sum;
    // y! stands in both masses.
    if y <= FEW_FACTORS {
        let (mut above, mut below) = (1.0, sum);
        let mut j = 0.0;
        while j < y {
            above *= back * (size + j);
            below *= fore * (signal_size + j);
            j += 1.0;
        }
        return Judged::new(ln_odds_of_zero.exp() * (above / below), both);
    }
    if !LIK {
        // The sum is 1 at least, and (signal_size + j) / (size + j) nears 1 as j grows.
        let first = factor * (size / signal_size).max(1.0);
        let others = factor * ((size + 1.0) / (signal_size + 1.0)).max(1.0);
        if ln_odds_of_zero.exp() * first * others.powi(FEW_FACTORS as i32) < CERTAIN && others < 1.0 {
            return Judged::new(0.0, both);
        }
    }
    let ln_ratio = ln_scale + sum.ln() - y * factor.ln() + ln_rising_ratio(y, signal_size, size);
    Judged::from_ln(ln_odds_of_zero - ln_ratio, both)
}

/// ln of Gamma(a + y) Gamma(b) / (Gamma(a) Gamma(b + y)).
fn ln_rising_ratio(y: f64, a: f64, b: f64) -> f64 {
    if y > MANY_FACTORS {
        return ln_gamma(a + y) - ln_gamma(a) - ln_gamma(b + y) + ln_gamma(b);
    }
    // Each factor is between 1e-7 and 1e7, so that the products of a few neither over- nor underflow.
    let mut ratio = 1.0;
    let mut j = 0.0;
    while j < y {
        let (mut above, mut below) = (1.0, 1.0);
        let end = (j + FEW_FACTORS).min(y);
        while j < end {
            above *= a + j;
            below *= b + j;
            j += 1.0;
        }
        ratio *= above / below;
    }
    ratio.ln()
}

/// ln of the mass of a negative binomial with this mean and size.
fn ln_nb(y: f64, mean: f64, size: f64) -> f64 {
    ln_zero(mean, size) + ln_rise(y, mean / (size + mean), size)
}

/// ln of the mass at 0.
fn ln_zero(mean: f64, size: f64) -> f64 {
    -size * ln_1p(mean / size)
}

/// Of the mass at y over the mass at 0, see [`LnSum::rise`].
fn ln_rise(y: f64, rate: f64, size: f64) -> f64 {
    let mut ln = LnSum::default();
    ln.rise(y, rate, size);
    ln.total()
}

/// One stored count, looked at.
#[derive(Clone, Copy)]
struct Pair {
    posterior: f64,
    /// Background UMIs expected of a count that is signal.
    both: f64,
    /// As in [`Judged`], before the cell without any guide is reweighted; of a look with `LIK`.
    not: f64,
    ln_odds_not: f64,
}

/// One look at a cell.
#[derive(Default)]
struct Look {
    log_lik: f64,
    /// Probability that the cell has no guide.
    empty: f64,
    /// By what the reweighted empty cell changes the probability of any set of guides: they are divided by it.
    scale: f64,
}

/// What a guide learns: carriers, background, signal and the captures that could bring it.
#[derive(Clone, Copy, Default)]
struct OfGuide {
    carriers: f64,
    background: f64,
    signal: f64,
    captured: f64,
}

/// What the guides learn from a block of cells.
struct GuideSums {
    guide: Vec<OfGuide>,
    /// Cells in each row of the zero table.
    in_row: [f64; ROWS],
    /// Cells by ln exposure, and the sum of their exposures.
    exposures: Vec<[f64; 2]>,
    /// Per batch: cells, exposure, signal, efficiency; less what the covariate explains.
    batch: Vec<[f64; 4]>,
    log_lik: f64,
    empty: f64,
}

const LN_LOW_EXPOSURE: f64 = -16.0;
const N_EXPOSURES: usize = 32 * EXPOSURE_BINS;

impl GuideSums {
    fn new(n_guides: usize, n_batches: usize) -> Self {
        Self {
            guide: vec![OfGuide::default(); n_guides],
            in_row: [0.0; ROWS],
            exposures: vec![[0.0; 2]; N_EXPOSURES],
            batch: vec![[0.0; 4]; n_batches],
            log_lik: 0.0,
            empty: 0.0,
        }
    }

    fn add(&mut self, other: &Self) {
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        for (to, from) in self.guide.iter_mut().zip(&other.guide) {
            to.carriers += from.carriers;
            to.background += from.background;
            to.signal += from.signal;
            to.captured += from.captured;
        }
        add(&mut self.in_row, &other.in_row);
        add(self.exposures.as_flattened_mut(), other.exposures.as_flattened());
        add(self.batch.as_flattened_mut(), other.batch.as_flattened());
        self.log_lik += other.log_lik;
        self.empty += other.empty;
    }

    fn see_exposure(&mut self, exposure: f64) {
        let at = ((exposure.ln() - LN_LOW_EXPOSURE) * EXPOSURE_BINS as f64).clamp(0.0, (N_EXPOSURES - 1) as f64);
        let bin = &mut self.exposures[at as usize];
        bin[0] += 1.0;
        bin[1] += exposure;
    }
}

/// The parameters of a guide side by side, as they are asked for together.
struct GuideParams {
    share: f64,
    efficiency: f64,
    library: f64,
    /// ln (1 - prior) / prior, and ln (1 - prior).
    ln_odds_not: f64,
    ln_not: f64,
}

/// What one look at the cells needs of the parameters.
struct Tables {
    zeros: ZeroTable,
    shares: ShareTable,
    guides: Vec<GuideParams>,
    ln_prior_weight: f64,
}

/// What a round knows of the cells.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// The sums of the look before.
    Look,
    /// Posteriors of the stored counts, which stand for a look.
    Posteriors(&'a [f64]),
    /// From which count on each guide is carried.
    Cuts(&'a [f64]),
}

/// A fit on its way.
struct Run {
    fit: Fit,
    sums: Sums,
    /// Of the stored counts, and what was divided by in each cell, once settled.
    posterior: Vec<f64>,
    scale: Vec<f64>,
    /// Of the stored counts, where they are asked for.
    log_odds: Vec<f64>,
    /// Next step of each shared parameter, in logs but for the slopes.
    step: [f64; SHARED],
}

impl Run {
    fn new(
        sample: &Sample,
        library: &[f64],
        start: &[f64],
        gated: &[bool],
        soup_only: bool,
        progress: &Progress,
    ) -> Result<Self> {
        let n_guides = sample.counts.n_guides();
        let n_batches = sample.counts.n_batches();
        let fit = Fit {
            shared: [1.0, 1.5, 2.0, 10.0, 0.01, 0.0, 0.0],
            prior: vec![1.0 / n_guides as f64; n_guides],
            share: vec![1.0 / n_guides as f64; n_guides],
            efficiency: vec![10.0; n_guides],
            library: library.to_vec(),
            exposure: vec![1.0; n_batches],
            capture: vec![1.0; n_batches],
            empty: 1.0,
            known_signal: 0.0,
            usual_rows: 0..0,
            soup_only,
            bic_gain: f64::NAN,
            log_lik: f64::NEG_INFINITY,
            rounds: 0,
            converged: false,
        };
        let sums = Sums::new(sample.cells.len(), sample.n_counts());
        let mut run = Run { fit, sums, posterior: vec![], scale: vec![], log_odds: vec![], step: STEPS };
        // Rough first values.
        for _ in 0..2 {
            run.round::<false>(sample, Before::Posteriors(start), gated, progress)?;
        }
        Ok(run)
    }

    /// One round of EM: a look at all cells, what it says of them, and the guides. Returns the log-likelihood before it.
    fn round<const LIK: bool>(
        &mut self,
        sample: &Sample,
        before: Before,
        gated: &[bool],
        progress: &Progress,
    ) -> Result<f64> {
        let Run { fit, sums, .. } = self;
        let tables = fit.tables();
        let counts = sample.counts;
        let blocks = progress.each(sample.blocks::<()>(sums, &mut []), |block| {
            let mut guides = GuideSums::new(counts.n_guides(), counts.n_batches());
            let mut pairs = Vec::new();
            block.each(sample, |place, sums, own, _| {
                let cell = sample.cells[place];
                let by_itself = |posterior| Pair { posterior, both: 0.0, not: f64::NAN, ln_odds_not: f64::NAN };
                let look = match before {
                    Before::Look => fit.look::<LIK>(&tables, counts, cell, sums, own, &mut pairs),
                    Before::Posteriors(start) => {
                        pairs.clear();
                        let start = &start[sample.starts[place]..sample.starts[place + 1]];
                        pairs.extend(start.iter().copied().map(by_itself));
                        Look { scale: 1.0, ..Look::default() }
                    }
                    Before::Cuts(cuts) => {
                        pairs.clear();
                        let carried = |at: usize| counts.counts()[at] >= cuts[counts.guides()[at] as usize];
                        pairs.extend(counts.cell(cell).map(|at| by_itself(f64::from(u8::from(carried(at))))));
                        *sums = fit.learn_cell(&tables, counts, cell, sums, own, &pairs, 1.0);
                        fit.look::<LIK>(&tables, counts, cell, sums, own, &mut pairs)
                    }
                };
                *sums = fit.learn_cell(&tables, counts, cell, sums, own, &pairs, look.scale);
                fit.learn_guides(&tables, counts, cell, sums, own, &pairs, &look, &mut guides);
            });
            guides
        })?;
        let mut guides = GuideSums::new(counts.n_guides(), counts.n_batches());
        blocks.iter().for_each(|block| guides.add(block));
        if !matches!(before, Before::Posteriors(_)) {
            fit.update_empty(sample.cells.len(), guides.empty);
        }
        fit.update_guides(gated, &tables.zeros, &guides);
        let mut known: Vec<f64> = sums.cell.iter().map(|cell| cell.signal).collect();
        let middle = known.len() / 2;
        fit.known_signal = if known.is_empty() { 0.0 } else { *known.select_nth_unstable_by(middle, f64::total_cmp).1 };
        Ok(guides.log_lik)
    }

    /// A round on cells that were not looked at yet. A guide is first taken as carried from the count on that makes it so in a cell
    /// as it is expected to be.
    fn meet(&mut self, sample: &Sample, gated: &[bool], progress: &Progress) -> Result<()> {
        let cuts = self.fit.cuts(&self.fit.tables(), sample.counts);
        self.sums = Sums::new(sample.cells.len(), sample.n_counts());
        self.round::<false>(sample, Before::Cuts(&cuts), gated, progress)?;
        Ok(())
    }

    /// EM until two searches in a row gain less than this of the log-likelihood, or up to the given round. Shared parameters
    /// are searched every second round.
    fn climb(&mut self, sample: &Sample, gain: f64, most: usize, gated: &[bool], progress: &Progress) -> Result<()> {
        let searched = sample.some(gain >= NEAR);
        // One that only ran out of rounds goes on; after another goal each search counts anew.
        let mut best = if self.fit.converged { f64::NEG_INFINITY } else { self.fit.log_lik };
        let mut idle = false;
        self.fit.converged = false;
        while self.fit.rounds < most {
            progress.check()?;
            self.fit.rounds += 1;
            let searches = self.fit.rounds > 2 && self.fit.rounds % 2 == 1;
            if !searches && self.fit.rounds < most {
                self.round::<false>(sample, Before::Look, gated, progress)?;
                continue;
            }
            self.fit.log_lik = self.round::<true>(sample, Before::Look, gated, progress)?;
            if !searches {
                break;
            }
            // The predictive log-likelihood is no EM objective and may fall a little; done when it gains no more.
            if self.fit.log_lik > best + gain * self.fit.log_lik.abs() {
                best = self.fit.log_lik;
                idle = false;
            } else if idle {
                self.fit.converged = true;
                break;
            } else {
                idle = true;
            }
            self.search(sample, &searched, progress)?;
        }
        Ok(())
    }

    /// Each shared parameter to the top of the parabola through the predictive log-likelihood here, a step up and a step
    /// down, or to the better end.
    fn search(&mut self, sample: &Sample, all: &[usize], progress: &Progress) -> Result<()> {
        let Run { fit, sums, step, .. } = self;
        // Where no guide is carried, size and capture of the signal change nothing.
        let mut parameters = vec![AMBIENT_SIZE, EXPOSURE_SHAPE];
        // It takes many looks, see below.
        if fit.rounds % 4 == 3 {
            parameters.push(HOPPING);
        }
        if !fit.soup_only {
            parameters.extend([SIGNAL_SIZE, CAPTURE_SHAPE]);
        }
        if sample.counts.has_covariate() {
            parameters.push(EXPOSURE_SLOPE);
            if !fit.soup_only {
                parameters.push(CAPTURE_SLOPE);
            }
        }
        // In a fixed order, whatever is left out.
        parameters.sort_unstable();
        let mut tables = fit.tables();
        let mut here = fit.objective(&tables, sample, all, sums, 0, progress)?;
        let few = sample.some(true);
        for i in parameters {
            let from = fit.shared[i];
            // Chimeras can take the place of the exposures, for a gain that is lost once the cells have followed.
            let (searched, ahead) = if i == HOPPING { (few.as_slice(), LOOKS_AHEAD) } else { (all, 0) };
            let all_here = here;
            if ahead > 0 {
                here = fit.objective(&tables, sample, searched, sums, ahead, progress)?;
            }
            let is_slope = i == EXPOSURE_SLOPE || i == CAPTURE_SLOPE;
            let of_signal = i == SIGNAL_SIZE || i == CAPTURE_SHAPE || i == CAPTURE_SLOPE;
            let mut at = |fit: &mut Fit, offset: f64| -> Result<(f64, f64)> {
                let to = if is_slope { from + offset } else { from * offset.exp() };
                fit.shared[i] = to.clamp(BOUNDS[i].0, BOUNDS[i].1);
                if of_signal {
                    tables.zeros = fit.zero_table();
                }
                let offset = if is_slope { fit.shared[i] - from } else { (fit.shared[i] / from).ln() };
                Ok((offset, fit.objective(&tables, sample, searched, sums, ahead, progress)?))
            };
            let up = at(fit, step[i])?;
            let down = at(fit, -step[i])?;
            // Through here = (0, 0): f = m x + c x x. At a bound up or down is here, and there is no parabola.
            let (m_up, m_down) = ((up.1 - here) / up.0, (down.1 - here) / down.0);
            let curve = (m_up - m_down) / (up.0 - down.0);
            let top = -(m_up - curve * up.0) / (2.0 * curve);
            let better = if up.1 > down.1 { up } else { down };
            let inside = curve < 0.0 && (down.0..=up.0).contains(&top);
            let best = if inside {
                let there = at(fit, top)?;
                if there.1 > better.1 {
                    there
                } else {
                    better
                }
            } else {
                better
            };
            let moved = if best.1 > here { best.0 } else { 0.0 };
            fit.shared[i] = if is_slope { from + moved } else { from * moved.exp() };
            if of_signal {
                tables.zeros = fit.zero_table();
            }
            here = match (ahead > 0, moved == 0.0) {
                (false, _) => here.max(best.1),
                (true, true) => all_here,
                (true, false) => fit.objective(&tables, sample, all, sums, 0, progress)?,
            };
            step[i] = (1.5 * moved.abs()).clamp(0.4 * step[i], 1.5 * step[i]).max(LEAST_STEP);
        }
        Ok(())
    }

    /// The log odds of all counts of the settled cells, which look as they did.
    fn find_log_odds(&mut self, sample: &Sample, progress: &Progress) -> Result<()> {
        let Run { fit, sums, log_odds, .. } = self;
        let (tables, counts) = (fit.tables(), sample.counts);
        *log_odds = vec![0.0; counts.n_counts()];
        progress.each(sample.blocks(sums, log_odds), |block| {
            let mut pairs = Vec::new();
            block.each(sample, |place, sums, own, log_odds| {
                let cell = sample.cells[place];
                fit.look::<true>(&tables, counts, cell, sums, own, &mut pairs);
                let hidden = fit.none_hidden(&tables, counts, cell, sums);
                for (at, to) in log_odds.iter_mut().enumerate() {
                    *to = fit.log_odds(&pairs, at, hidden);
                }
            });
        })?;
        Ok(())
    }

    /// The posteriors of all counts, given the learnt parameters: cells are looked at until they change no more. With `LIK` also
    /// the log-likelihood.
    fn settle<const LIK: bool>(&mut self, sample: &Sample, progress: &Progress) -> Result<()> {
        let Run { fit, sums, posterior, scale, .. } = self;
        let tables = fit.tables();
        let counts = sample.counts;
        *posterior = vec![0.0; counts.n_counts()];
        let blocks = progress.each(sample.blocks(sums, posterior), |block| {
            let (mut pairs, mut before, mut path) = (Vec::new(), Vec::new(), Path::default());
            let mut log_lik = 0.0;
            let mut scales = Vec::with_capacity(block.cell.len());
            block.each(sample, |place, sums, own, posterior| {
                let cell = sample.cells[place];
                let mut look = fit.look::<false>(&tables, counts, cell, sums, own, &mut pairs);
                path.step = None;
                let (mut of_pairs, mut of_sums) = (Change::default(), Change::default());
                for _ in 0..LOOKS {
                    before.clone_from(&pairs);
                    let learnt = fit.learn_cell(&tables, counts, cell, sums, own, &pairs, look.scale);
                    of_sums.see(path.go_on(sums, learnt, own));
                    look = fit.look::<false>(&tables, counts, cell, sums, own, &mut pairs);
                    let change = |(a, b): (&Pair, &Pair)| (a.posterior - b.posterior).abs();
                    of_pairs.see(pairs.iter().zip(&before).map(change).fold(0.0, f64::max));
                    if of_sums.rest() < SETTLED_SUMS && of_pairs.rest() < SETTLED {
                        break;
                    }
                }
                for (to, pair) in posterior.iter_mut().zip(&pairs) {
                    *to = pair.posterior;
                }
                if LIK {
                    log_lik += fit.look::<true>(&tables, counts, cell, sums, own, &mut pairs).log_lik;
                }
                scales.push(look.scale);
            });
            (log_lik, scales)
        })?;
        if LIK {
            fit.log_lik = blocks.iter().map(|(log_lik, _)| log_lik).sum();
        }
        *scale = blocks.into_iter().flat_map(|(_, scales)| scales).collect();
        Ok(())
    }
}

/// The last change on the way to a fixed point, and its share of the one before.
struct Change {
    last: f64,
    share: f64,
}

impl Default for Change {
    fn default() -> Self {
        Self { last: f64::INFINITY, share: MOST_SHARE }
    }
}

impl Change {
    fn see(&mut self, change: f64) {
        let knows = self.last.is_finite() && self.last > 0.0;
        self.share = if knows { (change / self.last).clamp(LEAST_SHARE, MOST_SHARE) } else { MOST_SHARE };
        self.last = change;
    }

    /// What all changes to come add up to, if each is so much smaller than the one before.
    fn rest(&self) -> f64 {
        self.last * self.share / (1.0 - self.share)
    }
}

/// The way of a cell to its fixed point, on which each step looks ahead along the last one (Anderson's acceleration of depth 1,
/// Walker and Ni 2011, doi:10.1137/10078356X), of exposure and capture each by itself. The fixed point stays what it is.
#[derive(Default)]
struct Path {
    /// What was learnt last, and by how much that differed from what it was learnt at.
    step: Option<(CellSums, [f64; 4])>,
    own: Vec<CellSums>,
}

/// How many times further along the last step its change is nothing, if it goes on as it did.
fn ahead(change: &[f64], last: &[f64]) -> f64 {
    let (mut along, mut square) = (0.0, 0.0);
    for (now, last) in change.iter().zip(last) {
        along += now * (now - last);
        square += (now - last) * (now - last);
    }
    let ahead = -along / square;
    if (LEAST_AHEAD..=MOST_AHEAD).contains(&ahead) {
        ahead
    } else {
        0.0
    }
}

impl Path {
    /// From `sums` and what was `learnt` there to where the cell is looked at next. `own` is what the counts say there. Returns
    /// the largest change from `sums` to `learnt`.
    fn go_on(&mut self, sums: &mut CellSums, learnt: CellSums, own: &mut [CellSums]) -> f64 {
        let change = sums.change(&learnt);
        let ahead =
            self.step.map_or([0.0; 2], |(_, last)| [ahead(&change[..2], &last[..2]), ahead(&change[2..], &last[2..])]);
        *sums = learnt;
        match self.step {
            Some((last, _)) if ahead != [0.0; 2] => {
                sums.look_ahead(&last, ahead);
                for (own, last) in own.iter_mut().zip(&mut self.own) {
                    let learnt = *own;
                    own.look_ahead(last, ahead);
                    *last = learnt;
                }
            }
            _ => {
                self.own.clear();
                self.own.extend_from_slice(own);
            }
        }
        self.step = Some((learnt, change));
        change.iter().fold(0.0, |most, change| change.abs().max(most))
    }
}

/// What is known of the exposure or the capture of a cell.
struct Gamma {
    shape: f64,
    rate: f64,
}

impl Gamma {
    fn new(shape: f64, mean: f64) -> Self {
        Self { shape, rate: shape / mean }
    }

    /// Mean and precision once so many UMIs were seen of what could have brought them.
    fn after(&self, umis: f64, source: f64) -> (f64, f64) {
        let precision = self.shape + umis.max(0.0);
        (precision / (self.rate + source.max(0.0)), precision)
    }
}

impl Fit {
    /// Whether both are all but the same: each shared parameter, and all in all the priors and ambient shares.
    fn is_near(&self, other: &Self) -> bool {
        let off = |a: &[f64], b: &[f64]| {
            let off: f64 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
            off <= SAME * b.iter().sum::<f64>()
        };
        let shared = self.shared.iter().zip(&other.shared).all(|(a, b)| (a - b).abs() <= SAME * b);
        shared && off(&self.prior, &other.prior) && off(&self.share, &other.share)
    }

    /// What a cell is expected to have before its guides are looked at: exposure and capture.
    fn expected(&self, counts: &GuideCounts, cell: usize) -> (f64, f64) {
        let batch = counts.batch()[cell] as usize;
        let (exposure, capture) = self.factors(counts.ln_covariate(cell));
        (self.exposure[batch] * exposure, self.capture[batch] * capture)
    }

    /// What the covariate multiplies exposure and capture by.
    fn factors(&self, ln_covariate: f64) -> (f64, f64) {
        if ln_covariate == 0.0 {
            return (1.0, 1.0);
        }
        ((self.shared[EXPOSURE_SLOPE] * ln_covariate).exp(), (self.shared[CAPTURE_SLOPE] * ln_covariate).exp())
    }

    /// Exposure and capture of a cell, before its guides are looked at.
    fn priors(&self, counts: &GuideCounts, cell: usize) -> (Gamma, Gamma) {
        let (exposure, capture) = self.expected(counts, cell);
        (Gamma::new(self.shared[EXPOSURE_SHAPE], exposure), Gamma::new(self.shared[CAPTURE_SHAPE], capture))
    }

    /// The means of both, from all guides of the cell.
    fn of_cell(&self, counts: &GuideCounts, cell: usize, sums: &CellSums) -> (f64, f64) {
        let (exposure, capture) = self.priors(counts, cell);
        (exposure.after(sums.background, sums.share).0, capture.after(sums.signal, sums.efficiency).0)
    }

    /// From which count on each guide is more likely carried than not, in a cell as it is expected to be.
    fn cuts(&self, tables: &Tables, counts: &GuideCounts) -> Vec<f64> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (exposure, capture, depth) = (mean(&self.exposure), mean(&self.capture), mean(counts.depth()));
        let [size, signal_size, exposure_shape, capture_shape, hopping, ..] = self.shared;
        let back_size = size * exposure_shape / (size + exposure_shape);
        let fore_size = signal_size * capture_shape / (signal_size + capture_shape);
        let carried = |guide: &GuideParams, y: f64| {
            let mean = (exposure * guide.share + hopping * (depth - y).max(0.0) * guide.library).max(1e-12);
            let signal = (capture * guide.efficiency).max(1e-9);
            judge::<false>(guide.ln_odds_not, y, mean, back_size, signal, fore_size).carried >= 0.5
        };
        tables
            .guides
            .iter()
            .map(|guide| (1..HIGHEST_CUT).map(f64::from).find(|&y| carried(guide, y)).unwrap_or(f64::from(HIGHEST_CUT)))
            .collect()
    }

    fn zero_table(&self) -> ZeroTable {
        // Covariates are seldom more than a few powers of e from their mean.
        let reach = 16.0 * (2.0 * self.shared[CAPTURE_SLOPE]).exp();
        let low = self.capture.iter().copied().fold(f64::INFINITY, f64::min) / reach;
        let high = self.capture.iter().copied().fold(0.0, f64::max) * reach;
        let step = (high / low).ln() / (ROWS - 1) as f64;
        let signal_size = self.shared[SIGNAL_SIZE];
        let size = 1.0 / (1.0 / signal_size + 1.0 / (self.shared[CAPTURE_SHAPE] + self.known_signal));
        let rows = std::array::from_fn(|_| OnceLock::new());
        let table = ZeroTable { ln_low: low.ln(), step, signal_size, size, rows };
        // On all threads, or the first cells of all threads wait for the same rows.
        self.usual_rows.clone().into_par_iter().for_each(|row| {
            table.row(self, row);
        });
        table
    }

    fn tables(&self) -> Tables {
        Tables {
            zeros: self.zero_table(),
            shares: ShareTable::new(&self.share),
            guides: (0..self.prior.len())
                .map(|g| {
                    let ln_not = ln_1p(-self.prior[g]);
                    GuideParams {
                        share: self.share[g],
                        efficiency: self.efficiency[g],
                        library: self.library[g],
                        ln_odds_not: ln_not - self.prior[g].ln(),
                        ln_not,
                    }
                })
                .collect(),
            ln_prior_weight: self.ln_prior_weight(),
        }
    }

    /// One look at a cell, given what its guides said of it in the last. Without `LIK` the log-likelihood is left out, which is
    /// half of the work.
    fn look<const LIK: bool>(
        &self,
        tables: &Tables,
        counts: &GuideCounts,
        cell: usize,
        sums: &CellSums,
        own: &[CellSums],
        pairs: &mut Vec<Pair>,
    ) -> Look {
        pairs.clear();
        let [size, signal_size, ..] = self.shared;
        let hopping = self.shared[HOPPING];
        let priors = self.priors(counts, cell);
        let depth = counts.depth()[cell];
        let (all_exposure, precision) = priors.0.after(sums.background, sums.share);
        let zero_size = 1.0 / (1.0 / size + 1.0 / precision);
        let (all_capture, _) = priors.1.after(sums.signal, sums.efficiency);
        let row = tables.zeros.at(self, all_capture);
        // Of all guides as if all were zero; the stored ones are put right below.
        let reach = (all_exposure + hopping * depth) / zero_size;
        let mut log_lik = LnSum::default();
        if LIK {
            log_lik.add(row.of(|row| row.zero_sum) - zero_size * tables.shares.ln_all(reach));
        }
        let mut none_carried = 1.0;
        for (at, own) in counts.cell(cell).zip(own) {
            let g = counts.guides()[at] as usize;
            let y = counts.counts()[at];
            let guide = &tables.guides[g];
            // Without what this guide itself said of the cell.
            let (exposure, e_precision) = priors.0.after(sums.background - own.background, sums.share - own.share);
            let (capture, d_precision) = priors.1.after(sums.signal - own.signal, sums.efficiency - own.efficiency);
            let mean = (exposure * guide.share + hopping * (depth - y) * guide.library).max(1e-12);
            let back_size = size * e_precision / (size + e_precision);
            let fore_size = signal_size * d_precision / (signal_size + d_precision);
            let judged = if self.soup_only {
                Judged::NEVER
            } else {
                let signal = (capture * guide.efficiency).max(1e-9);
                judge::<LIK>(guide.ln_odds_not, y, mean, back_size, signal, fore_size)
            };
            if LIK {
                log_lik.add(
                    guide.ln_not + ln_zero(mean, back_size) + zero_size * ln_1p(reach * guide.share)
                        - row.of(|row| row.ln_seen[g]),
                );
                log_lik.rise(y, mean / (back_size + mean), back_size);
                judged.add_more(&mut log_lik);
            }
            none_carried *= judged.not;
            pairs.push(Pair {
                posterior: judged.carried,
                both: judged.both,
                not: judged.not,
                ln_odds_not: if LIK { judged.ln_odds_not() } else { f64::NAN },
            });
        }
        // The cell without any guide has weight w instead of 1. Most cells are certain to have one.
        let empty = if none_carried < CERTAIN {
            0.0
        } else {
            let mut ln_empty = row.of(|row| row.not_carried_sum);
            for &guide in &counts.guides()[counts.cell(cell)] {
                ln_empty -= row.of(|row| row.ln_not[guide as usize]);
            }
            none_carried * ln_empty.exp()
        };
        let empty = if empty < 1.0 { empty } else { 1.0 };
        let scale = self.empty * empty + (1.0 - empty);
        for pair in pairs {
            pair.posterior = (pair.posterior / scale).min(1.0);
        }
        Look {
            log_lik: if LIK { log_lik.total() + scale.ln() - tables.ln_prior_weight } else { 0.0 },
            empty: self.empty * empty / scale,
            scale,
        }
    }

    /// The probability that the cell carries none of the guides without a count.
    fn none_hidden(&self, tables: &Tables, counts: &GuideCounts, cell: usize, sums: &CellSums) -> f64 {
        let (capture, _) = self.priors(counts, cell).1.after(sums.signal, sums.efficiency);
        let row = tables.zeros.at(self, capture);
        let of_stored: f64 =
            counts.guides()[counts.cell(cell)].iter().map(|&guide| row.of(|row| row.ln_not[guide as usize])).sum();
        (row.of(|row| row.not_carried_sum) - of_stored).exp()
    }

    /// ln of the odds that a cell carries a guide, of a look with `LIK`. Without the guide the cell may be one without any, whose
    /// weight is w; from a posterior that is not near 1 the odds lose nothing.
    fn log_odds(&self, pairs: &[Pair], at: usize, hidden: f64) -> f64 {
        let pair = &pairs[at];
        if pair.posterior > 0.0 && pair.posterior < 0.5 {
            return bounded_log_odds(f64::NAN, pair.posterior);
        }
        let others: f64 =
            pairs.iter().enumerate().filter(|&(other, _)| other != at).map(|(_, other)| other.not).product();
        let weight = 1.0 + (self.empty - 1.0) * others * hidden;
        bounded_log_odds(-(pair.ln_odds_not + weight.max(0.0).ln()), pair.posterior)
    }

    /// What the guides of a cell now say of it, and each stored count.
    #[allow(clippy::too_many_arguments)]
    fn learn_cell(
        &self,
        tables: &Tables,
        counts: &GuideCounts,
        cell: usize,
        sums: &CellSums,
        own: &mut [CellSums],
        pairs: &[Pair],
        scale: f64,
    ) -> CellSums {
        let [size, signal_size, ..] = self.shared;
        let depth = counts.depth()[cell];
        let (exposure, capture) = self.of_cell(counts, cell, sums);
        let mut total = CellSums {
            share: tables.shares.reach(exposure / size),
            efficiency: tables.zeros.at(self, capture).of(|row| row.efficiency_sum) / scale,
            ..CellSums::default()
        };
        for ((at, own), pair) in counts.cell(cell).zip(own).zip(pairs) {
            let g = counts.guides()[at] as usize;
            let y = counts.counts()[at];
            let guide = &tables.guides[g];
            let soup = exposure * guide.share;
            let mean = (soup + self.shared[HOPPING] * (depth - y) * guide.library).max(1e-12);
            let p = pair.posterior;
            let signal_weight = signal_size / (signal_size + capture * guide.efficiency);
            *own = CellSums {
                background: ((1.0 - p) * y + p * pair.both) * soup * size / (mean * (size + mean)),
                share: guide.share * size / (size + soup),
                signal: p * (y - pair.both) * signal_weight,
                efficiency: p * guide.efficiency * signal_weight,
            };
            total.background += own.background;
            total.signal += own.signal;
            total.efficiency += own.efficiency;
        }
        total
    }

    /// What a cell says of the guides, once it is learnt itself.
    #[allow(clippy::too_many_arguments)]
    fn learn_guides(
        &self,
        tables: &Tables,
        counts: &GuideCounts,
        cell: usize,
        sums: &CellSums,
        own: &[CellSums],
        pairs: &[Pair],
        look: &Look,
        guides: &mut GuideSums,
    ) {
        let signal_size = self.shared[SIGNAL_SIZE];
        let batch = counts.batch()[cell] as usize;
        let factors = self.factors(counts.ln_covariate(cell));
        let (exposure, capture) = self.of_cell(counts, cell, sums);
        let row = tables.zeros.at(self, capture);
        let in_cell = 1.0 / look.scale;
        guides.in_row[row.row] += (1.0 - row.weight) * in_cell;
        guides.in_row[row.row + 1] += row.weight * in_cell;
        guides.see_exposure(exposure);
        let of_batch = &mut guides.batch[batch];
        of_batch[0] += 1.0;
        of_batch[1] += exposure / factors.0;
        of_batch[2] += sums.signal;
        of_batch[3] += sums.efficiency * factors.1;
        for ((at, own), pair) in counts.cell(cell).zip(own).zip(pairs) {
            let g = counts.guides()[at] as usize;
            // A guide that is seen hides nothing.
            let hidden = -exp_m1(row.of(|row| row.ln_not[g])) * in_cell;
            let p = pair.posterior;
            let guide = &mut guides.guide[g];
            guide.carriers += p - hidden;
            guide.background += own.background;
            guide.signal += own.signal;
            guide.captured +=
                (p - hidden) * capture * signal_size / (signal_size + capture * tables.guides[g].efficiency);
        }
        guides.log_lik += look.log_lik;
        guides.empty += look.empty;
    }

    /// Probability that a cell has no guide, before reweighting.
    fn prior_empty(&self) -> f64 {
        self.prior.iter().map(|&pi| ln_1p(-pi)).sum::<f64>().exp()
    }

    fn ln_prior_weight(&self) -> f64 {
        let empty = self.prior_empty();
        (self.empty * empty + 1.0 - empty).ln()
    }

    fn update_empty(&mut self, n_cells: usize, expected: f64) {
        if self.soup_only {
            return;
        }
        // Half a cell on either side keeps the share inside (0, 1).
        let share = (expected + 0.5) / (n_cells as f64 + 1.0);
        let empty = self.prior_empty().clamp(1e-12, 1.0 - 1e-12);
        self.empty = (share * (1.0 - empty) / (empty * (1.0 - share))).clamp(1e-3, 1e3);
    }

    fn update_guides(&mut self, gated: &[bool], zeros: &ZeroTable, sums: &GuideSums) {
        let n_guides = self.prior.len();
        let n_batches = self.exposure.len();
        let [size, signal_size, ..] = self.shared;
        let least = USUAL * sums.in_row.iter().sum::<f64>();
        let usual = |&n: &f64| n > least;
        let end = sums.in_row.iter().rposition(usual).map_or(0, |last| last + 1);
        self.usual_rows = sums.in_row.iter().position(usual).unwrap_or(0)..end;

        // Carriers that left no count.
        let column = |f: fn(&OfGuide) -> f64| -> Vec<f64> { sums.guide.iter().map(f).collect() };
        let (mut carriers, mut captured) = (column(|guide| guide.carriers), column(|guide| guide.captured));
        for (i, &n) in sums.in_row.iter().enumerate() {
            if n == 0.0 {
                continue;
            }
            let row = zeros.row(self, i);
            for g in 0..n_guides {
                let hidden = n * -exp_m1(row.ln_not[g]);
                carriers[g] += hidden;
                captured[g] += hidden * row.capture * signal_size / (signal_size + row.capture * self.efficiency[g]);
            }
        }
        // What is hidden was taken from a table; rounding must leave no guide below nothing.
        carriers.iter_mut().chain(&mut captured).for_each(|value| *value = value.max(0.0));

        // Half a cell of the average guide keeps every prior inside (0, 1).
        let n: f64 = sums.batch.iter().map(|batch| batch[0]).sum();
        let empty = self.prior_empty();
        let weight = self.empty * empty + 1.0 - empty;
        let live = gated.iter().filter(|&&g| !g).count().max(1) as f64;
        let mean_prior = carriers.iter().sum::<f64>() / live / n;
        for g in 0..n_guides {
            let share = (carriers[g] + 0.5) / (n + 0.5 / mean_prior.max(1e-9));
            self.prior[g] = if gated[g] || self.soup_only { 1e-9 } else { (share * weight).clamp(1e-9, 1.0 - 1e-6) };
        }

        // Half a UMI of the average guide.
        let bins: Vec<(f64, f64)> =
            sums.exposures.iter().filter(|bin| bin[0] > 0.0).map(|bin| (bin[1] / bin[0], bin[0])).collect();
        for g in 0..n_guides {
            let q = self.share[g];
            let reach: f64 = bins.iter().map(|&(e, n)| n * e * size / (size + e * q)).sum();
            self.share[g] = (sums.guide[g].background + 0.5) / (reach + 0.5 * n_guides as f64);
        }
        let total: f64 = self.share.iter().sum();
        self.share.iter_mut().for_each(|q| *q /= total);

        let signal = column(|guide| guide.signal);
        let overall = (signal.iter().sum::<f64>() / captured.iter().sum::<f64>().max(1e-9)).max(1e-3);
        let strength = shrinkage(&signal, &captured, overall);
        for g in 0..n_guides {
            self.efficiency[g] = ((strength + signal[g]) / (strength / overall + captured[g])).max(1e-3);
        }

        // Batches lean on five cells of average exposure and five UMIs of average capture.
        let mean_exposure = (sums.batch.iter().map(|batch| batch[1]).sum::<f64>() / n.max(1.0) * total).max(1e-6);
        for (batch, [cells, exposure, signal, efficiency]) in sums.batch.iter().enumerate() {
            self.exposure[batch] = ((exposure * total + 5.0 * mean_exposure) / (cells + 5.0)).max(1e-6);
            if n_batches > 1 {
                self.capture[batch] = ((5.0 + signal) / (5.0 + efficiency)).clamp(1e-3, 1e3);
            }
        }
        if n_batches > 1 {
            let mean = sums.batch.iter().zip(&self.capture).map(|(b, d)| b[0] * d).sum::<f64>() / n;
            self.capture.iter_mut().for_each(|d| *d /= mean);
            self.efficiency.iter_mut().for_each(|f| *f *= mean);
        }
    }

    fn ridge(&self, n_cells: usize) -> f64 {
        let (size, shape, strength) = RIDGE;
        let off = |value: f64, to: f64| (value / to).ln().powi(2);
        strength * n_cells as f64 * (off(self.shared[SIGNAL_SIZE], size) + off(self.shared[CAPTURE_SHAPE], shape))
    }

    /// Predictive log-likelihood of the searched cells of the sample, less the ridge; after so many more looks at each.
    #[allow(clippy::too_many_arguments)]
    fn objective(
        &self,
        tables: &Tables,
        sample: &Sample,
        searched: &[usize],
        sums: &Sums,
        ahead: usize,
        progress: &Progress,
    ) -> Result<f64> {
        let block = BLOCK.min(searched.len().div_ceil(16)).max(1);
        let blocks = progress.each(searched.chunks(block).collect(), |cells| {
            let (mut pairs, mut own) = (Vec::new(), Vec::new());
            let mut log_lik = 0.0;
            for &i in cells {
                own.clear();
                own.extend_from_slice(&sums.own[sample.starts[i]..sample.starts[i + 1]]);
                let (cell, mut of_cell) = (sample.cells[i], sums.cell[i]);
                for _ in 0..ahead {
                    let scale = self.look::<false>(tables, sample.counts, cell, &of_cell, &own, &mut pairs).scale;
                    of_cell = self.learn_cell(tables, sample.counts, cell, &of_cell, &mut own, &pairs, scale);
                }
                log_lik += self.look::<true>(tables, sample.counts, cell, &of_cell, &own, &mut pairs).log_lik;
            }
            log_lik
        })?;
        Ok(blocks.iter().sum::<f64>() - self.ridge(searched.len()))
    }

    /// Why there is nothing to call, if so.
    fn why_no_signal(&self, gated: &[bool]) -> Option<&'static str> {
        let carriers = |g: usize| if gated[g] { 0.0 } else { self.prior[g] };
        let (n, sum) =
            (0..gated.len()).fold((0.0, 0.0), |(n, sum), g| (n + carriers(g), sum + carriers(g) * self.efficiency[g]));
        if self.bic_gain <= 0.0 {
            Some("ambient and chimeric UMIs alone explain the screen (BIC)")
        } else if sum < LEAST_SIGNAL * n {
            Some("what looks like signal averages under 2 UMIs: it cannot be told from uneven ambient UMIs")
        } else {
            None
        }
    }

    /// The effects of the cells and what they come from, as score_guides() documents them.
    fn cell_table(&self, counts: &GuideCounts, sums: &Sums, scale: &[f64]) -> Vec<(String, Column)> {
        let cells = || (0..counts.n_cells()).into_par_iter().with_min_len(1 << 13);
        let column = |f: &(dyn Fn(usize) -> f64 + Sync)| Column::Real(cells().map(f).collect());
        let expected = |cell| self.expected(counts, cell);
        [
            ("exposure_expected", column(&|cell| expected(cell).0)),
            ("exposure", column(&|cell| self.of_cell(counts, cell, &sums.cell[cell]).0)),
            ("background_sum", column(&|cell| sums.cell[cell].background)),
            ("share_sum", column(&|cell| sums.cell[cell].share)),
            ("capture_expected", column(&|cell| expected(cell).1)),
            ("capture", column(&|cell| self.of_cell(counts, cell, &sums.cell[cell]).1)),
            ("signal_sum", column(&|cell| sums.cell[cell].signal)),
            ("efficiency_sum", column(&|cell| sums.cell[cell].efficiency)),
            ("empty_scale", column(&|cell| scale[cell])),
        ]
        .map(|(name, column)| (name.to_string(), column))
        .to_vec()
    }

    fn rows(&self, counts: &GuideCounts, gates: &[Option<FitRow>], no_signal: Option<&str>) -> Vec<FitRow> {
        let n_cells = counts.cells_per_guide();
        let (status, note) = if let Some(note) = no_signal {
            (Status::NoSignal, note.to_string())
        } else if self.converged {
            (Status::Ok, String::new())
        } else {
            (Status::NotConverged, format!("not converged after {} rounds", self.rounds))
        };
        gates
            .iter()
            .enumerate()
            .map(|(unit, gate)| match gate {
                Some(row) => FitRow { unit, ..row.clone() },
                None => FitRow {
                    unit,
                    n_cells: n_cells[unit],
                    status,
                    note: note.clone(),
                    values: vec![self.prior[unit], self.share[unit], self.efficiency[unit]],
                    ..FitRow::empty()
                },
            })
            .collect()
    }
}

/// Shape of the gamma prior of efficiencies: one over the variance of log efficiencies between guides, by moments, less
/// what the guides' own uncertainty explains.
fn shrinkage(signal: &[f64], captured: &[f64], overall: f64) -> f64 {
    let (mut n, mut sum) = (0.0, 0.0);
    for (&s, &c) in signal.iter().zip(captured) {
        if s > 3.0 {
            n += 1.0;
            sum += (s / c / overall).ln().powi(2) - 1.0 / s;
        }
    }
    if n < 3.0 {
        return 4.0;
    }
    (n / sum.max(1e-9)).clamp(0.5, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::on_threads;
    use crate::simulate::{simulate, Screen, Simulation};

    fn screen(change: impl Fn(&mut Screen)) -> (Simulation, Scores) {
        let mut settings = Screen::named("easy").unwrap();
        settings.n_cells = 2000;
        settings.n_guides = 20;
        change(&mut settings);
        on_threads(2, || {
            let sim = simulate(&settings, 3, &Progress::default())?;
            let counts = GuideCounts::new(settings.n_guides, &sim.indptr, &sim.guide, &sim.count, None)?;
            let scores = Ambient.score(&counts, &Control::default(), &Progress::default())?;
            Ok((sim, scores))
        })
        .unwrap()
    }

    #[test]
    fn a_screen_without_carriers_has_no_calls() {
        for size in [f64::INFINITY, 0.5] {
            let (_, scores) = screen(|s| {
                s.share_empty = 1.0;
                s.ambient_mean = 5.0;
                s.ambient_size = size;
            });
            assert!(scores.score.iter().all(|&p| p < 0.5), "ambient size {size}");
        }
    }

    #[test]
    fn comes_near_the_observer_who_knows_every_parameter() {
        for (name, change) in [
            // 60 ambient UMIs over 20 guides in clusters as loose as those of the easy screen are beyond it: see CONTRIBUTING.md.
            ("deep ambient", (|s: &mut Screen| (s.ambient_mean, s.ambient_size) = (20.0, 1.5)) as fn(&mut Screen)),
            ("chimeras", |s| s.hopping = 0.1),
            ("rare guides", |s| s.abundance_spread = 1.5),
        ] {
            let (sim, scores) = screen(change);
            let f1 = sim.judge(|k| scores.score[k] >= 0.5).f1();
            assert!(f1 > sim.ceiling() - 0.02, "{name}: {f1} of {}", sim.ceiling());
        }
    }

    #[test]
    fn a_covariate_helps_where_it_drives_the_exposure_and_harms_nowhere() {
        let mut settings = Screen::named("easy").unwrap();
        (settings.n_cells, settings.n_guides) = (3000, 6);
        (settings.ambient_mean, settings.ambient_size, settings.ambient_cell_size) = (3.0, f64::INFINITY, 0.5);
        (settings.signal_mean, settings.capture_spread) = (6.0, 0.0);
        on_threads(2, || {
            let sim = simulate(&settings, 5, &Progress::default())?;
            let f1 = |covariate: Option<&[f64]>| -> Result<(f64, f64)> {
                let mut counts = GuideCounts::new(settings.n_guides, &sim.indptr, &sim.guide, &sim.count, None)?;
                if let Some(x) = covariate {
                    counts = counts.with_covariate(x)?;
                }
                let scores = Ambient.score(&counts, &Control::default(), &Progress::default())?;
                let slope = scores.screen.iter().find_map(|(name, column)| match column {
                    Column::Real(values) if name == "exposure_slope" => values.first().copied(),
                    _ => None,
                });
                let slope = slope.unwrap_or(f64::NAN);
                Ok((sim.judge(|k| scores.score[k] >= 0.5).f1(), slope))
            };
            // The square of the exposure, so that the slope to find is 1/2; and that of other cells.
            let exposure: Vec<f64> = sim.cells.iter().map(|cell| cell.ambient.max(1e-3).powi(2)).collect();
            let mut other = exposure.clone();
            other.rotate_left(1234);
            let (alone, told, misled) = (f1(None)?, f1(Some(&exposure))?, f1(Some(&other))?);
            assert!(alone.1.is_nan() && misled.1 < 0.05 && (told.1 - 0.5).abs() < 0.1, "{alone:?} {told:?} {misled:?}");
            assert!(told.0 > alone.0 + 0.003, "{alone:?} {told:?}");
            assert!((misled.0 - alone.0).abs() < 0.003, "{alone:?} {misled:?}");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_pair_is_summed_as_the_convolution_says() {
        for y in [1.0, 7.0, 12.0, 13.0, 48.0, 49.0, 60.0, 96.0, 97.0, 400.0] {
            convolved(y);
        }
        // Odds that underflow keep their logarithm.
        let far = judge::<true>(0.5, 400.0, 1e-4, 0.4, 300.0, 2.0);
        let (background, signal) = (ln_nb(400.0, 1e-4, 0.4), ln_zero(1e-4, 0.4) + ln_nb(400.0, 300.0, 2.0));
        assert!(far.odds_not == 0.0 && far.carried == 1.0 && far.not == 0.0);
        assert!((more(&far) / (signal - background - 0.5) - 1.0).abs() < 1e-4, "{}", more(&far));
    }

    /// Odds are left out only where nothing can be seen of them.
    #[test]
    fn certain_pairs_are_certain() {
        let mut certain = 0;
        for y in [13.0, 14.0, 20.0, 47.0, 60.0, 500.0] {
            for mean in [1e-6, 1e-3, 0.1, 3.0, 30.0] {
                for (size, signal_size) in [(0.05, 1e3), (1.0, 2.0), (2.0, 1.0), (1e3, 0.2)] {
                    for signal in [0.01, 1.0, 30.0] {
                        let exact = judge::<true>(9.0, y, mean, size, signal, signal_size);
                        let fast = judge::<false>(9.0, y, mean, size, signal, signal_size);
                        certain += u32::from(fast.odds_not == 0.0 && exact.odds_not > 0.0);
                        let same = exact.odds_not == fast.odds_not || exact.odds_not < CERTAIN;
                        assert!(same && fast.carried == exact.carried, "{y} {mean} {size} {signal_size} {signal}");
                    }
                }
            }
        }
        assert!(certain > 50, "{certain}");
    }

    fn more(judged: &Judged) -> f64 {
        let mut ln = LnSum::default();
        judged.add_more(&mut ln);
        ln.total()
    }

    fn convolved(y: f64) {
        let (mean, size, signal, signal_size) = (1.3, 0.4, 5.0, 2.0);
        let mass = |y: f64, mean: f64, size: f64| ln_nb(y, mean, size).exp();
        let terms: Vec<f64> = (0..=y as u32)
            .map(|j| mass(f64::from(j), mean, size) * mass(y - f64::from(j), signal, signal_size))
            .collect();
        let sum: f64 = terms.iter().sum();
        let first: f64 = terms.iter().enumerate().map(|(j, t)| j as f64 * t).sum();
        let judged = judge::<true>(0.5, y, mean, size, signal, signal_size);
        let odds_not = 0.5f64.exp() * mass(y, mean, size) / sum;
        assert!((judged.odds_not / odds_not - 1.0).abs() < 1e-11 && (judged.both - first / sum).abs() < 1e-12);
        assert!(
            (judged.carried + judged.not - 1.0).abs() < 1e-15
                && (judged.not / judged.carried / odds_not - 1.0).abs() < 1e-11
        );
        assert!((more(&judged) - (1.0 / odds_not).ln_1p()).abs() < 1e-11 * (1.0 + more(&judged)));
    }
}
