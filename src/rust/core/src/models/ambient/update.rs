//! The M-step: guides and batches from what a pass learnt.
use super::params::{Param, Params, CAPTURE_SHAPE, EMPTY_SD, EXPOSURE_SHAPE, PRIOR_CELLS, SEARCHED, SHARE_UMIS};
use super::pass::Sums;
use crate::special::digamma;

/// Batches lean on so many cells of average exposure, and so many UMIs of average capture.
const BATCH_CELLS: f64 = 5.0;

impl Params {
    /// One step of guides, batches, shapes and the weight of the empty cell. `live` guides can be carried.
    pub fn update(&mut self, sums: &Sums, live: &[bool], soup_only: bool) {
        let n_guides = self.n_guides();
        let size = self.shared.ambient_size;
        let exposures = super::grid::EXPOSURES.nodes();

        // Ambient shares; their sum is a factor of all exposures.
        let nodes: Vec<(f64, f64)> = sums
            .exposures
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, n)| *n > 0.0)
            .map(|(k, n)| (exposures[k], n))
            .collect();
        let all_soup: f64 = sums.guides.iter().map(|g| g.soup).sum();
        // Bursts for each ambient UMI outside of them.
        let clumped = self.shared.clumping * self.shared.burst.ln_1p() / self.shared.burst;
        let mut all_reach = 0.0;
        for g in 0..n_guides {
            let q = self.share[g];
            let reach: f64 = nodes.iter().map(|&(e, n)| n * e * (size / (size + e * q) + clumped)).sum();
            all_reach += q * reach;
            let lean = SHARE_UMIS * n_guides as f64;
            self.share[g] = (sums.guides[g].soup + lean * self.library[g].max(1e-12)) / (reach + lean);
        }
        let total: f64 = self.share.iter().sum();
        self.share.iter_mut().for_each(|q| *q /= total);
        // PX-EM (Liu, Rubin and Wu 1998): the scale that the UMIs of each batch ask for goes into its exposure.
        let overall = ((all_soup + SHARE_UMIS) / (all_reach + SHARE_UMIS)).max(1e-6);
        let n: f64 = sums.batches.iter().map(|b| b.usual).sum();
        let mean_of = |sum: f64, expected: f64, from: f64| if expected > 0.0 { from * sum / expected } else { from };
        let means: Vec<f64> = sums
            .batches
            .iter()
            .zip(&self.exposure)
            .map(|(b, &a)| mean_of(b.exposure, b.expected.exposure, a))
            .collect();
        let mean = sums.batches.iter().zip(&means).map(|(b, a)| b.usual * a).sum::<f64>() / n.max(1e-9);
        for (batch, sums) in sums.batches.iter().enumerate() {
            let scale = (sums.soup + BATCH_CELLS * overall) / (sums.reach + BATCH_CELLS);
            let leaning = (sums.usual * means[batch] + BATCH_CELLS * mean.max(1e-6)) / (sums.usual + BATCH_CELLS);
            self.exposure[batch] = (scale * leaning).clamp(2e-3, 1e5);
        }
        // By how much the spread of the exposures is more than the prior has it, on the same nodes.
        let spread = |n: f64, sum: f64, ln: f64| if n > 0.0 && sum > 0.0 { n * (sum / n).ln() - ln } else { 0.0 };
        let more: f64 = sums
            .batches
            .iter()
            .map(|b| {
                spread(b.usual, b.exposure, b.ln_exposure)
                    - spread(b.usual, b.expected.exposure, b.expected.ln_exposure)
            })
            .sum();
        let param = &SEARCHED[EXPOSURE_SHAPE];
        self.shared.exposure_shape = shape_of(n, more, self.shared.exposure_shape, param);

        if !soup_only {
            self.update_signal(sums, live);
        }
    }

    fn update_signal(&mut self, sums: &Sums, live: &[bool]) {
        let n_guides = self.n_guides();
        // Priors, as if the empty cells that the weight keeps out were there.
        let weight = 1.0 + (self.shared.empty_weight - 1.0) * self.ln_none().exp();
        let n = sums.cells.max(1.0) / weight;
        for g in 0..n_guides {
            if live[g] {
                let share = (sums.guides[g].carriers + PRIOR_CELLS) / (n + PRIOR_CELLS / self.prior_mean);
                self.prior[g] = share.clamp(1e-9, 1.0 - 1e-6);
            }
        }
        if n_guides > 1 {
            self.shared.empty_weight = self.weight_of(sums.empty / sums.cells.max(1.0), sums.cells);
        }
        // Efficiencies.
        let shape = self.efficiency_shape;
        for g in 0..n_guides {
            let guide = &sums.guides[g];
            self.efficiency[g] =
                ((shape + guide.signal) / (shape / self.efficiency_mean + guide.captured)).clamp(1e-3, 1e6);
        }
        // Captures of batches (PX-EM again), by what is left once the efficiencies have moved: the scale of the signal is
        // counted once. They are 1 on average; the efficiencies take the rest.
        let (signal, captured) = sums.batches.iter().fold((0.0, 0.0), |(s, c), b| (s + b.signal, c + b.captured));
        let overall = (signal + 1.0) / (captured + 1.0);
        for (batch, sums) in sums.batches.iter().enumerate() {
            let scale = (BATCH_CELLS + sums.signal / overall) / (BATCH_CELLS + sums.captured);
            let mean = if sums.expected.capture > 0.0 { sums.capture / sums.expected.capture } else { 1.0 };
            let mean = (sums.cells * mean + BATCH_CELLS) / (sums.cells + BATCH_CELLS);
            self.capture[batch] = (self.capture[batch] * mean * scale).clamp(1e-2, 1e2);
        }
        let cells: f64 = sums.batches.iter().map(|b| b.cells).sum();
        let mean = sums.batches.iter().zip(&self.capture).map(|(b, d)| b.cells * d).sum::<f64>() / cells.max(1e-9);
        if mean > 0.0 {
            self.capture.iter_mut().for_each(|d| *d /= mean);
            self.efficiency.iter_mut().for_each(|f| *f *= mean);
        }
        let cells: f64 = sums.batches.iter().map(|b| b.cells).sum();
        let spread = |n: f64, sum: f64, ln: f64| if n > 0.0 && sum > 0.0 { n * (sum / n).ln() - ln } else { 0.0 };
        let more: f64 = sums
            .batches
            .iter()
            .map(|b| {
                spread(b.cells, b.capture, b.ln_capture) - spread(b.cells, b.expected.capture, b.expected.ln_capture)
            })
            .sum();
        let param = &SEARCHED[CAPTURE_SHAPE];
        self.shared.capture_shape = shape_of(cells, more, self.shared.capture_shape, param);
    }

    /// The weight of the empty cell that gives this share of empty cells, and its prior.
    fn weight_of(&self, share: f64, n_cells: f64) -> f64 {
        let ln_none = self.ln_none();
        let none = ln_none.exp().clamp(1e-300, 1.0 - 1e-12);
        // Slope of share ln w - ln(1 + (w - 1) none) - (ln w)^2 / (2 sd^2 n) in ln w, which falls.
        let slope = |ln_w: f64| {
            let w = ln_w.exp();
            share - w * none / (1.0 + (w - 1.0) * none) - ln_w / (EMPTY_SD * EMPTY_SD * n_cells.max(1.0))
        };
        root((-12.0, 12.0), 60, slope).exp()
    }

    /// What the priors of guides are centred at: refreshed between climbs, constant within.
    pub fn refresh(&mut self, sums: &Sums, live: &[bool]) {
        let n_live = live.iter().filter(|&&l| l).count().max(1) as f64;
        let carriers: f64 = sums.guides.iter().map(|g| g.carriers).sum();
        self.prior_mean = (carriers / n_live / sums.cells.max(1.0)).clamp(1e-9, 0.9);
        let signal: f64 = sums.guides.iter().map(|g| g.signal).sum();
        let captured: f64 = sums.guides.iter().map(|g| g.captured).sum();
        self.efficiency_mean = ((signal + 1.0) / (captured + 0.1)).clamp(1e-3, 1e6);
        // One over the variance of the log efficiencies, less what their own uncertainty explains.
        let (mut n, mut sum) = (0.0, 0.0);
        for guide in &sums.guides {
            if guide.signal > 3.0 && guide.captured > 0.0 {
                n += 1.0;
                sum += (guide.signal / guide.captured / self.efficiency_mean).ln().powi(2) - 1.0 / guide.signal;
            }
        }
        // As if four guides more had a spread of ln f of .7.
        self.efficiency_shape = ((n + 4.0) / (sum.max(0.0) + 2.0)).clamp(0.5, 50.0);
    }
}

/// The shape of a gamma, by bisection: n (ln k - digamma(k)), which is the spread that n values have, rises by `more`; with a
/// log-normal prior.
fn shape_of(n: f64, more: f64, from: f64, param: &Param) -> f64 {
    let (prior, bounds) = (param.prior, param.bounds);
    if n <= 0.0 {
        return from;
    }
    let spread = n * (from.ln() - digamma(from)) + more;
    // Slope in ln k of n (k ln k - ln Gamma(k)) - k spread - ..., over k.
    let slope = |ln_k: f64| {
        let k: f64 = ln_k.exp();
        n * (ln_k - digamma(k)) - spread - (ln_k - prior.0.ln()) / (prior.1 * prior.1 * k)
    };
    root((bounds.0.ln(), bounds.1.ln()), 50, slope).exp()
}

/// Where a falling function is 0, by so many bisections; the nearer end where it is not.
fn root((mut low, mut high): (f64, f64), bisections: usize, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..bisections {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
