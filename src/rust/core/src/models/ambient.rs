//! ambient: one generative model of the whole matrix, learnt from all guides and cells together.
//!
//! The count of guide g in cell c of batch b, with z = 1 if the cell carries the guide, is y = B + z S:
//!
//!   B ~ NB(mean e_c q_g + h (D_c - y) l_g, size a)   soup, of heavy tail, and chimeras of the cell's other molecules
//!   S ~ NB(mean d_c f_g, size r)                     signal
//!   e_c ~ gamma(shape s, mean A_b)                   ambient exposure of the cell, UMIs
//!   d_c ~ gamma(shape k, mean d_b)                   capture of the cell; d_b is 1 on average
//!   q_g, f_g ~ gamma                                 ambient share and efficiency, shrunken across guides
//!   z ~ Bernoulli(pi_g), the cell without any guide reweighted by w; pi_g ~ beta, shrunken across guides
//!
//! l_g is the guide's share of all UMIs. Each pair is judged by what the *other* guides of the cell say of e_c and d_c
//! (leave one out): B and S are then predicted with e_c and d_c integrated out, which for the gamma posteriors is again
//! a negative binomial in mean and variance. So no guide is explained away by its own count. w couples the guides of a
//! cell: where hardly any cell is without a guide, a cell's best candidate is believed sooner.
//!
//! Guides and cells are updated by their closed-form EM steps; a, r, s, k and h, of which there is one each, by a search
//! on the predictive log-likelihood. Sums run over fixed blocks of cells, so threads do not change a bit.
//!
//! Shrinkage of a guide across guides is new here. The soup as a negative binomial with cell exposures: Fleming et al.
//! 2023 (CellBender, doi:10.1038/s41592-023-01943-7).
use super::poisson_gauss::PoissonGauss;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::fit::{FitRow, FitTable, Status};
use crate::mixture;
use crate::run::Progress;
use crate::special::ln_gamma;
use crate::Result;

/// Cells that are summed together; fixes the order of sums.
const BLOCK: usize = 2048;
/// Cells the shared parameters are learnt from; more say nothing new of them.
const TRAINING_CELLS: usize = 20_000;
/// Most rounds of EM, and how many each start gets.
const ROUNDS: usize = 100;
const SHORT_ROUNDS: usize = 8;
/// Rounds without a gain of 1e-5 of the log-likelihood after which the fit has converged.
const PATIENCE: usize = 8;
/// Bins of exposure, of capture and of guides by ambient share, for the sums over zeros.
const BINS: usize = 24;
/// Counts above this are not summed over the background's part: so many UMIs are all but certain either way.
const LONGEST_SUM: f64 = 5000.0;
/// What r and k are drawn to, and by how many nats per cell for a factor of e. Cells without any guide and carriers that
/// left no UMI look alike: without this the fit may explain all of the former by small r and k.
const RIDGE: (f64, f64, f64) = (2.0, 8.0, 0.05);
/// Least mean signal, UMIs.
const LEAST_SIGNAL: f64 = 2.0;
/// Bounds of a, r, s, k and h. Shapes below these would say that cells have nothing in common.
const BOUNDS: [(f64, f64); 5] = [(0.05, 1e3), (0.2, 1e3), (0.3, 1e3), (0.5, 1e3), (1e-5, 0.5)];

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

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        let (n_guides, n_cells) = (counts.n_guides(), counts.n_cells());
        let gates: Vec<Option<FitRow>> = (0..n_guides)
            .map(|guide| {
                let count = counts.by_guide().guide(guide).count;
                mixture::gate(count.len(), count.iter().copied().max().unwrap_or(0), control)
            })
            .collect();
        let gated: Vec<bool> = gates.iter().map(Option::is_some).collect();
        if gated.iter().all(|&g| g) {
            let rows: Vec<FitRow> =
                gates.into_iter().flatten().enumerate().map(|(unit, row)| FitRow { unit, ..row }).collect();
            return Ok(Scores {
                score: vec![0.0; counts.n_counts()],
                fits: FitTable::from_rows("guide", &names(), &rows),
            });
        }
        // Every k-th cell, so that all lanes are there.
        let stride = n_cells.div_ceil(TRAINING_CELLS).max(1);
        let training: Vec<usize> = (0..n_cells).step_by(stride).collect();
        let start = mixture::score_per_guide(&PoissonGauss, counts, control, progress, false)?.score;
        let by_share: Vec<f64> = (0..n_cells)
            .flat_map(|cell| {
                let depth = counts.depth()[cell];
                counts.cell(cell).map(move |at| {
                    let y = counts.counts()[at];
                    f64::from(u8::from(y >= 2.0 && y >= 0.2 * depth))
                })
            })
            .collect();
        let mut runs = Vec::new();
        for start in [start, by_share] {
            let mut run = Run::new(counts, &training, &start, &gated, false);
            run.climb(counts, &training, &gated, SHORT_ROUNDS, progress)?;
            runs.push(run);
        }
        let Some(mut run) = runs.into_iter().max_by(|a, b| a.fit.log_lik.total_cmp(&b.fit.log_lik)) else {
            return Err(crate::Error::Internal("the ambient model had no start".into()));
        };
        run.climb(counts, &training, &gated, ROUNDS, progress)?;
        let mut fit = run.fit;
        // Whether there is any signal at all: the same screen as soup and chimeras alone.
        let mut soup = Run::new(counts, &training, &vec![0.0; counts.n_counts()], &gated, true);
        soup.climb(counts, &training, &gated, ROUNDS, progress)?;
        let live = gated.iter().filter(|&&g| !g).count();
        // Prior and efficiency of each guide, size and capture shape of the signal, weight of the empty cell.
        let penalty = (2 * live + 3) as f64 * (training.len() as f64).ln();
        fit.bic_gain = 2.0 * (fit.log_lik - soup.fit.log_lik) - penalty;
        let all: Vec<usize> = (0..n_cells).collect();
        let pass = fit.finish(counts, &all, &gated, progress)?;
        let no_signal = fit.why_no_signal(&gated);
        let rows = fit.rows(counts, &gates, no_signal);
        let mut score = pass.posterior;
        for (value, &guide) in score.iter_mut().zip(counts.guides()) {
            if gated[guide as usize] || no_signal.is_some() {
                *value = 0.0;
            }
        }
        Ok(Scores { score, fits: FitTable::from_rows("guide", &names(), &rows) })
    }
}

fn names() -> Vec<String> {
    [
        "prior",
        "ambient_share",
        "efficiency",
        "ambient_size",
        "signal_size",
        "exposure_shape",
        "capture_shape",
        "hopping",
        "empty_weight",
    ]
    .map(String::from)
    .to_vec()
}

/// The five shared parameters that are searched for, by index.
const AMBIENT_SIZE: usize = 0;
const SIGNAL_SIZE: usize = 1;
const EXPOSURE_SHAPE: usize = 2;
const CAPTURE_SHAPE: usize = 3;
const HOPPING: usize = 4;

#[derive(Clone)]
struct Fit {
    /// a, r, s, k, h.
    shared: [f64; 5],
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

/// The sums of all cells, and what each stored count put into them.
struct Sums {
    cell: Vec<CellSums>,
    own: Vec<CellSums>,
}

impl Sums {
    fn new(n_cells: usize, n_counts: usize) -> Self {
        Self { cell: vec![CellSums::default(); n_cells], own: vec![CellSums::default(); n_counts] }
    }
}

/// What a zero hides, for captures on a geometric grid: per guide, and over all guides.
struct ZeroTable {
    ln_low: f64,
    step: f64,
    rows: Vec<ZeroRow>,
}

struct ZeroRow {
    capture: f64,
    /// ln P(not carried | zero).
    not_carried: Vec<f64>,
    /// ln P(zero of the signal part).
    zero: Vec<f64>,
    not_carried_sum: f64,
    zero_sum: f64,
    /// Expected efficiency of hidden carriers, weighted as in [`CellSums`].
    efficiency_sum: f64,
}

impl ZeroTable {
    fn index(&self, capture: f64) -> usize {
        let at = ((capture.ln() - self.ln_low) / self.step).round();
        (at.max(0.0) as usize).min(self.rows.len() - 1)
    }

    fn row(&self, capture: f64) -> &ZeroRow {
        &self.rows[self.index(capture)]
    }
}

/// The expectations of one pass over the cells.
struct Pass {
    /// Per stored count of the cells that were passed over, in order.
    posterior: Vec<f64>,
    /// Expected background UMIs if the pair is not, and if it is signal.
    background: Vec<[f64; 2]>,
    /// Per cell, by what the reweighted empty cell changes the probability of any set of guides: they are divided by it.
    scale: Vec<f64>,
    log_lik: f64,
    /// Expected number of cells without a guide.
    empty: f64,
}

impl Pass {
    /// Expected background UMIs of a stored count.
    fn expected(&self, at: usize) -> f64 {
        let p = self.posterior[at];
        (1.0 - p) * self.background[at][0] + p * self.background[at][1]
    }
}

/// ln mass of a negative binomial with this mean and size; `ln_factorial` is ln y!.
fn ln_nb(y: f64, mean: f64, size: f64, ln_factorial: f64) -> f64 {
    let zero = -size * (mean / size).ln_1p();
    if y == 0.0 {
        return zero;
    }
    zero + y * (mean / (size + mean)).ln() + ln_gamma(size + y) - ln_gamma(size) - ln_factorial
}

/// ln P(y | background), ln P(y | background + signal), and the background UMIs expected in the latter.
fn pair(y: f64, mean: f64, size: f64, signal: f64, signal_size: f64) -> (f64, f64, f64) {
    let ln_factorial = ln_gamma(y + 1.0);
    let ln0 = ln_nb(y, mean, size, ln_factorial);
    if y > LONGEST_SUM {
        // One negative binomial with the mean and variance of the sum stands for it.
        let both = mean + signal;
        let both_size = both * both / (mean * mean / size + signal * signal / signal_size);
        return (ln0, ln_nb(y, both, both_size, ln_factorial), y * mean / both);
    }
    // Sum over the background's part j of the count, by ratios of neighbouring masses.
    let back = mean / (size + mean);
    let fore = (signal_size + signal) / signal;
    let (mut b, mut s) = ((-size * (mean / size).ln_1p()).exp(), 1.0);
    let (mut sum, mut first) = (0.0, 0.0);
    let mut j = 0.0;
    while j <= y {
        let term = b * s;
        sum += term;
        first += term * j;
        if j > mean && term < 1e-15 * sum && b < 1e-15 {
            break;
        }
        let k = y - j;
        b *= (size + j) / (j + 1.0) * back;
        s *= k / (signal_size + k - 1.0) * fore;
        j += 1.0;
    }
    if !(sum.is_finite() && sum > 0.0) {
        // Beyond the range of f64: the count lies so far above everything that the signal alone holds it.
        return (ln0, ln_nb(y, signal, signal_size, ln_factorial), mean.min(y));
    }
    (ln0, ln_nb(y, signal, signal_size, ln_factorial) + sum.ln(), first / sum)
}

/// Values put into bins of equal numbers: the mean of each bin and its number.
fn bin(values: &[f64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let each = sorted.len().div_ceil(BINS).max(1);
    sorted.chunks(each).map(|chunk| (chunk.iter().sum::<f64>() / chunk.len() as f64, chunk.len() as f64)).collect()
}

/// A fit on its way.
struct Run {
    fit: Fit,
    sums: Sums,
    /// Factor of the next step of each shared parameter.
    step: [f64; 5],
}

impl Run {
    fn new(counts: &GuideCounts, cells: &[usize], start: &[f64], gated: &[bool], soup_only: bool) -> Self {
        let n_guides = counts.n_guides();
        let n_batches = counts.n_batches();
        let mut library = vec![0.0; n_guides];
        for (&guide, &y) in counts.guides().iter().zip(counts.counts()) {
            library[guide as usize] += y;
        }
        let total: f64 = library.iter().sum();
        library.iter_mut().for_each(|l| *l /= total);
        let mut fit = Fit {
            shared: [1.0, 1.5, 2.0, 10.0, 0.01],
            prior: vec![1.0 / n_guides as f64; n_guides],
            share: vec![1.0 / n_guides as f64; n_guides],
            efficiency: vec![10.0; n_guides],
            library,
            exposure: vec![1.0; n_batches],
            capture: vec![1.0; n_batches],
            empty: 1.0,
            known_signal: 0.0,
            soup_only,
            bic_gain: f64::NAN,
            log_lik: f64::NEG_INFINITY,
            rounds: 0,
            converged: false,
        };
        let places = places(counts, cells);
        let pass = Pass {
            posterior: places.iter().map(|&at| start[at]).collect(),
            background: places.iter().map(|&at| [counts.counts()[at], 0.0]).collect(),
            scale: vec![1.0; cells.len()],
            log_lik: f64::NEG_INFINITY,
            empty: 0.0,
        };
        let mut sums = Sums::new(cells.len(), places.len());
        // Rough first values.
        for _ in 0..2 {
            fit.update_cells(counts, cells, &pass, &mut sums);
            fit.update_guides(counts, cells, gated, &pass, &sums);
        }
        Run { fit, sums, step: [1.6, 1.4, 1.6, 1.6, 2.0] }
    }

    /// EM up to the given round, with a search over the shared parameters every second round.
    fn climb(
        &mut self,
        counts: &GuideCounts,
        cells: &[usize],
        gated: &[bool],
        most: usize,
        progress: &Progress,
    ) -> Result<()> {
        let Run { fit, sums, step } = self;
        let mut best = f64::NEG_INFINITY;
        let mut since = 0;
        while fit.rounds < most {
            progress.check()?;
            let pass = fit.pass(counts, cells, sums, progress)?;
            fit.log_lik = pass.log_lik;
            fit.rounds += 1;
            // The predictive log-likelihood is no EM objective and may fall a little; done when it gains no more.
            if pass.log_lik > best + 1e-5 * pass.log_lik.abs() {
                best = pass.log_lik;
                since = 0;
            } else {
                since += 1;
                if since >= PATIENCE {
                    fit.converged = true;
                    break;
                }
            }
            fit.update_empty(cells.len(), pass.empty);
            fit.update_cells(counts, cells, &pass, sums);
            fit.update_guides(counts, cells, gated, &pass, sums);
            if fit.rounds >= 3 && fit.rounds % 2 == 1 {
                fit.search(counts, cells, sums, step, progress)?;
            }
        }
        Ok(())
    }
}

impl Fit {
    /// The learnt parameters on all cells: cells and guides are updated a few times more, the shared ones stay.
    fn finish(&mut self, counts: &GuideCounts, cells: &[usize], gated: &[bool], progress: &Progress) -> Result<Pass> {
        let mut sums = Sums::new(cells.len(), counts.n_counts());
        let mut pass = self.pass(counts, cells, &sums, progress)?;
        for _ in 0..6 {
            self.update_empty(cells.len(), pass.empty);
            self.update_cells(counts, cells, &pass, &mut sums);
            self.update_guides(counts, cells, gated, &pass, &sums);
            pass = self.pass(counts, cells, &sums, progress)?;
        }
        self.log_lik = pass.log_lik;
        Ok(pass)
    }

    /// Mean and precision of the exposure of a cell, less what one guide says of it.
    fn exposure_of(&self, batch: usize, sums: &CellSums, background: f64, share: f64) -> (f64, f64) {
        let shape = self.shared[EXPOSURE_SHAPE];
        let precision = shape + (sums.background - background).max(0.0);
        (precision / (shape / self.exposure[batch] + (sums.share - share).max(0.0)), precision)
    }

    fn capture_of(&self, batch: usize, sums: &CellSums, signal: f64, efficiency: f64) -> (f64, f64) {
        let shape = self.shared[CAPTURE_SHAPE];
        let precision = shape + (sums.signal - signal).max(0.0);
        (precision / (shape / self.capture[batch] + (sums.efficiency - efficiency).max(0.0)), precision)
    }

    /// Probability that a guide which is carried leaves no count.
    fn no_signal(&self, guide: usize, capture: f64) -> f64 {
        let size = 1.0 / (1.0 / self.shared[SIGNAL_SIZE] + 1.0 / (self.shared[CAPTURE_SHAPE] + self.known_signal));
        (-size * (capture * self.efficiency[guide] / size).ln_1p()).exp()
    }

    fn zero_table(&self) -> ZeroTable {
        let low = self.capture.iter().copied().fold(f64::INFINITY, f64::min) / 16.0;
        let high = self.capture.iter().copied().fold(0.0, f64::max) * 16.0;
        let step = (high / low).ln() / (BINS - 1) as f64;
        let signal_size = self.shared[SIGNAL_SIZE];
        let rows = (0..BINS)
            .map(|i| {
                let capture = low * (step * i as f64).exp();
                let zero: Vec<f64> = (0..self.prior.len())
                    .map(|g| (-self.prior[g] * (1.0 - self.no_signal(g, capture))).ln_1p())
                    .collect();
                let not_carried: Vec<f64> = zero.iter().zip(&self.prior).map(|(z, pi)| (-pi).ln_1p() - z).collect();
                let efficiency_sum = not_carried
                    .iter()
                    .zip(&self.efficiency)
                    .map(|(n, f)| -n.exp_m1() * f * signal_size / (signal_size + capture * f))
                    .sum();
                ZeroRow {
                    capture,
                    not_carried_sum: not_carried.iter().sum(),
                    zero_sum: zero.iter().sum(),
                    not_carried,
                    zero,
                    efficiency_sum,
                }
            })
            .collect();
        ZeroTable { ln_low: low.ln(), step, rows }
    }

    /// One E-step over the cells, given what their guides said in the last.
    fn pass(&self, counts: &GuideCounts, cells: &[usize], sums: &Sums, progress: &Progress) -> Result<Pass> {
        let zeros = self.zero_table();
        let shares = bin(&self.share);
        let [size, signal_size, ..] = self.shared;
        let hopping = self.shared[HOPPING];
        let starts = starts(counts, cells);
        let blocks = progress.map(cells.len().div_ceil(BLOCK), |block| {
            let range = block * BLOCK..((block + 1) * BLOCK).min(cells.len());
            let mut pass = Pass { posterior: vec![], background: vec![], scale: vec![], log_lik: 0.0, empty: 0.0 };
            for i in range {
                let (cell, own) = (cells[i], &sums.own[starts[i]..starts[i + 1]]);
                let sums = &sums.cell[i];
                let batch = counts.batch()[cell] as usize;
                let depth = counts.depth()[cell];
                let (all_exposure, precision) = self.exposure_of(batch, sums, 0.0, 0.0);
                let zero_size = 1.0 / (1.0 / size + 1.0 / precision);
                let (all_capture, _) = self.capture_of(batch, sums, 0.0, 0.0);
                let row = zeros.row(all_capture);
                // Of all guides as if all were zero; the stored ones are put right below.
                let hop = hopping * depth;
                let mut log_lik = shares
                    .iter()
                    .map(|&(share, n)| -n * zero_size * ((all_exposure * share + hop * share) / zero_size).ln_1p())
                    .sum::<f64>()
                    + row.zero_sum;
                let mut ln_empty = row.not_carried_sum;
                let first = pass.posterior.len();
                for (at, own) in counts.cell(cell).zip(own) {
                    let g = counts.guides()[at] as usize;
                    let y = counts.counts()[at];
                    let (q, f, pi) = (self.share[g], self.efficiency[g], self.prior[g]);
                    // Without what this guide itself said of the cell.
                    let (exposure, e_precision) = self.exposure_of(batch, sums, own.background, own.share);
                    let (capture, d_precision) = self.capture_of(batch, sums, own.signal, own.efficiency);
                    let mean = (exposure * q + hopping * (depth - y) * self.library[g]).max(1e-12);
                    let back_size = 1.0 / (1.0 / size + 1.0 / e_precision);
                    let fore_size = 1.0 / (1.0 / signal_size + 1.0 / d_precision);
                    let (ln0, ln1, both) = pair(y, mean, back_size, (capture * f).max(1e-9), fore_size);
                    let (a, b) = ((-pi).ln_1p() + ln0, pi.ln() + ln1);
                    let top = a.max(b);
                    let total = top + ((a - top).exp() + (b - top).exp()).ln();
                    let posterior = (b - total).exp();
                    log_lik += total + zero_size * ((all_exposure * q + hop * q) / zero_size).ln_1p() - row.zero[g];
                    ln_empty += a - total - row.not_carried[g];
                    pass.posterior.push(posterior);
                    pass.background.push([y, both]);
                }
                // The cell without any guide has weight w instead of 1.
                let empty = ln_empty.min(0.0).exp();
                let z = self.empty * empty + (1.0 - empty);
                for value in &mut pass.posterior[first..] {
                    *value = (*value / z).min(1.0);
                }
                pass.empty += self.empty * empty / z;
                pass.scale.push(z);
                pass.log_lik += log_lik + z.ln() - self.ln_prior_weight();
            }
            pass
        })?;
        let mut all = Pass { posterior: vec![], background: vec![], scale: vec![], log_lik: 0.0, empty: 0.0 };
        for block in blocks {
            all.posterior.extend(block.posterior);
            all.background.extend(block.background);
            all.scale.extend(block.scale);
            all.log_lik += block.log_lik;
            all.empty += block.empty;
        }
        Ok(all)
    }

    /// Probability that a cell has no guide, before reweighting.
    fn prior_empty(&self) -> f64 {
        self.prior.iter().map(|&pi| (-pi).ln_1p()).sum::<f64>().exp()
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

    /// What every stored count says of its cell.
    fn update_cells(&mut self, counts: &GuideCounts, cells: &[usize], pass: &Pass, sums: &mut Sums) {
        let zeros = self.zero_table();
        let shares = bin(&self.share);
        let [size, signal_size, ..] = self.shared;
        let hopping = self.shared[HOPPING];
        let mut k = 0;
        for (i, &cell) in cells.iter().enumerate() {
            let batch = counts.batch()[cell] as usize;
            let depth = counts.depth()[cell];
            let (exposure, _) = self.exposure_of(batch, &sums.cell[i], 0.0, 0.0);
            let (capture, _) = self.capture_of(batch, &sums.cell[i], 0.0, 0.0);
            let mut total = CellSums {
                share: shares.iter().map(|&(q, n)| n * q * size / (size + exposure * q)).sum(),
                efficiency: zeros.row(capture).efficiency_sum / pass.scale[i],
                ..CellSums::default()
            };
            for at in counts.cell(cell) {
                let g = counts.guides()[at] as usize;
                let y = counts.counts()[at];
                let soup = exposure * self.share[g];
                let mean = (soup + hopping * (depth - y) * self.library[g]).max(1e-12);
                let p = pass.posterior[k];
                let weight = size / (size + mean);
                let signal_weight = signal_size / (signal_size + capture * self.efficiency[g]);
                let own = CellSums {
                    background: pass.expected(k) * soup / mean * weight,
                    share: self.share[g] * size / (size + soup),
                    signal: p * (y - pass.background[k][1]) * signal_weight,
                    efficiency: p * self.efficiency[g] * signal_weight,
                };
                total.background += own.background;
                total.signal += own.signal;
                total.efficiency += own.efficiency;
                sums.own[k] = own;
                k += 1;
            }
            sums.cell[i] = total;
        }
        let mut known: Vec<f64> = sums.cell.iter().map(|cell| cell.signal).collect();
        known.sort_by(f64::total_cmp);
        self.known_signal = known.get(known.len() / 2).copied().unwrap_or(0.0);
    }

    fn update_guides(&mut self, counts: &GuideCounts, cells: &[usize], gated: &[bool], pass: &Pass, sums: &Sums) {
        let n_guides = self.prior.len();
        let n_batches = self.exposure.len();
        let zeros = self.zero_table();
        let [size, signal_size, ..] = self.shared;
        // Per guide: carriers, background, signal and the captures that could bring it.
        let (mut carriers, mut background) = (vec![0.0; n_guides], vec![0.0; n_guides]);
        let (mut signal, mut captured) = (vec![0.0; n_guides], vec![0.0; n_guides]);
        let mut stored = vec![vec![0.0; n_guides]; BINS];
        let mut in_row = [0.0; BINS];
        let mut exposures = Vec::with_capacity(cells.len());
        let mut of_batch = vec![[0.0; 4]; n_batches];
        let mut k = 0;
        for (i, &cell) in cells.iter().enumerate() {
            let batch = counts.batch()[cell] as usize;
            let (exposure, _) = self.exposure_of(batch, &sums.cell[i], 0.0, 0.0);
            let (capture, _) = self.capture_of(batch, &sums.cell[i], 0.0, 0.0);
            let row = zeros.index(capture);
            let in_cell = 1.0 / pass.scale[i];
            in_row[row] += in_cell;
            exposures.push(exposure);
            of_batch[batch][0] += 1.0;
            of_batch[batch][1] += exposure;
            of_batch[batch][2] += sums.cell[i].signal;
            of_batch[batch][3] += sums.cell[i].efficiency;
            for at in counts.cell(cell) {
                let g = counts.guides()[at] as usize;
                let p = pass.posterior[k];
                carriers[g] += p;
                background[g] += sums.own[k].background;
                signal[g] += sums.own[k].signal;
                captured[g] += p * capture * signal_size / (signal_size + capture * self.efficiency[g]);
                stored[row][g] += in_cell;
                k += 1;
            }
        }
        for (row, table) in zeros.rows.iter().enumerate() {
            for g in 0..n_guides {
                let hidden = (in_row[row] - stored[row][g]).max(0.0) * -table.not_carried[g].exp_m1();
                carriers[g] += hidden;
                let capture = table.capture;
                captured[g] += hidden * capture * signal_size / (signal_size + capture * self.efficiency[g]);
            }
        }

        // Half a cell of the average guide keeps every prior inside (0, 1).
        let n = cells.len() as f64;
        let empty = self.prior_empty();
        let weight = self.empty * empty + 1.0 - empty;
        let live = gated.iter().filter(|&&g| !g).count().max(1) as f64;
        let mean_prior = carriers.iter().sum::<f64>() / live / n;
        for g in 0..n_guides {
            let share = (carriers[g] + 0.5) / (n + 0.5 / mean_prior.max(1e-9));
            self.prior[g] = if gated[g] || self.soup_only { 1e-9 } else { (share * weight).clamp(1e-9, 1.0 - 1e-6) };
        }

        // Half a UMI of the average guide.
        let bins = bin(&exposures);
        for g in 0..n_guides {
            let q = self.share[g];
            let reach: f64 = bins.iter().map(|&(e, n)| n * e * size / (size + e * q)).sum();
            self.share[g] = (background[g] + 0.5) / (reach + 0.5 * n_guides as f64);
        }
        let total: f64 = self.share.iter().sum();
        self.share.iter_mut().for_each(|q| *q /= total);

        let overall = (signal.iter().sum::<f64>() / captured.iter().sum::<f64>().max(1e-9)).max(1e-3);
        let strength = shrinkage(&signal, &captured, overall);
        for g in 0..n_guides {
            self.efficiency[g] = ((strength + signal[g]) / (strength / overall + captured[g])).max(1e-3);
        }

        // Batches lean on five cells of average exposure and five UMIs of average capture.
        let mean_exposure = (exposures.iter().sum::<f64>() / n.max(1.0) * total).max(1e-6);
        for (batch, [cells, exposure, signal, efficiency]) in of_batch.iter().enumerate() {
            self.exposure[batch] = ((exposure * total + 5.0 * mean_exposure) / (cells + 5.0)).max(1e-6);
            if n_batches > 1 {
                self.capture[batch] = ((5.0 + signal) / (5.0 + efficiency)).clamp(1e-3, 1e3);
            }
        }
        if n_batches > 1 {
            let cells: f64 = of_batch.iter().map(|b| b[0]).sum();
            let mean = of_batch.iter().zip(&self.capture).map(|(b, d)| b[0] * d).sum::<f64>() / cells;
            self.capture.iter_mut().for_each(|d| *d /= mean);
            self.efficiency.iter_mut().for_each(|f| *f *= mean);
        }
    }

    fn ridge(&self, n_cells: usize) -> f64 {
        let (size, shape, strength) = RIDGE;
        let off = |value: f64, to: f64| (value / to).ln().powi(2);
        strength * n_cells as f64 * (off(self.shared[SIGNAL_SIZE], size) + off(self.shared[CAPTURE_SHAPE], shape))
    }

    /// Each shared parameter a step up or down, where the predictive log-likelihood rises; steps shrink where it does not.
    fn search(
        &mut self,
        counts: &GuideCounts,
        cells: &[usize],
        sums: &Sums,
        step: &mut [f64; 5],
        progress: &Progress,
    ) -> Result<()> {
        let mut best = self.pass(counts, cells, sums, progress)?.log_lik - self.ridge(cells.len());
        // Where no guide is carried, size and capture of the signal change nothing.
        let searched: &[usize] = if self.soup_only {
            &[AMBIENT_SIZE, EXPOSURE_SHAPE, HOPPING]
        } else {
            &[AMBIENT_SIZE, SIGNAL_SIZE, EXPOSURE_SHAPE, CAPTURE_SHAPE, HOPPING]
        };
        for &i in searched {
            let here = self.shared[i];
            let mut moved = false;
            for to in [here * step[i], here / step[i]] {
                self.shared[i] = to.clamp(BOUNDS[i].0, BOUNDS[i].1);
                let log_lik = self.pass(counts, cells, sums, progress)?.log_lik - self.ridge(cells.len());
                if log_lik > best {
                    best = log_lik;
                    moved = true;
                    break;
                }
                self.shared[i] = here;
            }
            if !moved {
                step[i] = step[i].sqrt();
            }
        }
        Ok(())
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
                    values: [self.prior[unit], self.share[unit], self.efficiency[unit]]
                        .into_iter()
                        .chain(self.shared)
                        .chain([self.empty])
                        .collect(),
                    log_lik: self.log_lik,
                    bic_gain: self.bic_gain,
                    iterations: Some(self.rounds),
                    converged: Some(self.converged),
                },
            })
            .collect()
    }
}

/// Where the stored counts of each cell start among those of all.
fn starts(counts: &GuideCounts, cells: &[usize]) -> Vec<usize> {
    let mut starts = vec![0];
    for &cell in cells {
        starts.push(starts[starts.len() - 1] + counts.cell(cell).len());
    }
    starts
}

fn places(counts: &GuideCounts, cells: &[usize]) -> Vec<usize> {
    cells.iter().flat_map(|&cell| counts.cell(cell)).collect()
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
    fn a_pair_is_summed_as_the_convolution_says() {
        let (y, mean, size, signal, signal_size) = (7.0, 1.3, 0.4, 5.0, 2.0);
        let mass = |y: f64, mean: f64, size: f64| ln_nb(y, mean, size, ln_gamma(y + 1.0)).exp();
        let terms: Vec<f64> =
            (0..=7).map(|j| mass(f64::from(j), mean, size) * mass(y - f64::from(j), signal, signal_size)).collect();
        let sum: f64 = terms.iter().sum();
        let first: f64 = terms.iter().enumerate().map(|(j, t)| j as f64 * t).sum();
        let (ln0, ln1, background) = pair(y, mean, size, signal, signal_size);
        assert!((ln0 - mass(y, mean, size).ln()).abs() < 1e-12);
        assert!((ln1 - sum.ln()).abs() < 1e-12 && (background - first / sum).abs() < 1e-12);
    }
}
