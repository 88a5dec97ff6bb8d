//! What a pass over the cells needs of the parameters, tabled over the nodes of exposure and capture.
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::grid::{Grid, UnitGamma, CAPTURES, EXPOSURES};
use super::params::Params;
use crate::special::{ln_1p, ln_factorial, ln_gamma};

/// Share of cells whose exposure is drawn from a wide gamma instead: damaged cells, droplets of another origin. Its shape,
/// and its mean over that of the batch.
const STRAYS: f64 = 0.01;
const STRAY_SHAPE: f64 = 2.0;
const STRAY_MEAN: f64 = 4.0;
/// Nodes with less prior mass in every class are left out.
const NEGLIGIBLE: f64 = 1e-9;

/// Cells of one batch and about the same covariate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Class {
    pub batch: usize,
    /// ln of the covariate over its mean.
    pub ln_covariate: f64,
}

/// What is known of a cell before its guides are looked at.
pub struct ClassPrior {
    /// Mass of each node of exposure and of capture.
    pub exposure: Vec<f64>,
    pub capture: Vec<f64>,
    /// Sums over the nodes before each: of the mass; of the mass that is no stray's, times 1, e and ln e.
    pub exposure_below: Vec<[f64; 4]>,
    /// Of the mass times 1, d and ln d.
    pub capture_below: Vec<[f64; 3]>,
    /// What the covariate multiplies exposure and capture by.
    pub factors: (f64, f64),
    /// ln of the probability of a cell without a UMI, and the state of such a cell.
    pub zero: Zero,
}

/// A cell without a UMI.
#[derive(Default)]
pub struct Zero {
    pub probability: f64,
    /// Weight of all sets of guides, and of the empty one before it is reweighted.
    pub any: f64,
    pub empty: f64,
}

/// Counts whose rising factorials are tabled.
const TABLED: usize = 1024;
/// Prior of a guide that no cell carries.
pub const NEVER: f64 = 1e-9;

pub struct Tables {
    pub classes: Vec<ClassPrior>,
    pub exposures: Vec<f64>,
    pub captures: Vec<f64>,
    /// Range of nodes that some class has mass on.
    pub exposure_range: (usize, usize),
    pub capture_range: (usize, usize),
    /// Per node of exposure, over all guides: ln of the mass of a zero of the ambient UMIs and that mass; what a unit of exposure brings.
    pub ln_zero_ambient: Vec<f64>,
    pub zero_ambient: Vec<f64>,
    pub reach: Vec<f64>,
    pub signal: Arc<Signal>,
    /// ln of the prior weight of all sets of guides, with the empty one reweighted.
    pub ln_weight: f64,
    /// ln of the probability that independent guides leave a cell empty.
    pub ln_none: f64,
    /// ln(1 + burst) / burst.
    pub burst_zero: f64,
}

/// What the signal makes of a count.
pub struct Signal {
    /// Range of nodes of capture that are tabled.
    range: (usize, usize),
    /// Per node of capture, over all guides: ln of the mass of a zero of the signal and that mass; the captured efficiency of
    /// carriers that left no UMI, weighted by r / (r + d f).
    pub ln_zero: Vec<f64>,
    pub zero: Vec<f64>,
    pub hidden_capture: Vec<f64>,
    /// Per guide and node of capture: P(carried | zero), and d f / (r + d f).
    pub hidden: Vec<f64>,
    pub rate: Vec<f64>,
    size: f64,
    ln_rise: Vec<f64>,
}

impl Tables {
    pub fn new(params: &Params, classes: &[Class]) -> Self {
        Self::with_signal(params, classes, None, false)
    }

    /// For posteriors that are final: priors as they are, not as the M-step counts them.
    pub fn exact(params: &Params, classes: &[Class]) -> Self {
        Self::with_signal(params, classes, None, true)
    }

    pub fn with_signal(params: &Params, classes: &[Class], signal: Option<&Arc<Signal>>, exact: bool) -> Self {
        let shared = &params.shared;
        let exposures = EXPOSURES.nodes();
        let captures = CAPTURES.nodes();
        let gamma = UnitGamma::new(shared.exposure_shape);
        let strays = UnitGamma::new(STRAY_SHAPE);
        let of_capture = UnitGamma::new(shared.capture_shape);
        // Where nothing is carried, captures change nothing: one node stands for all.
        let is_carried = params.prior.iter().any(|&pi| pi > NEVER);
        let mut priors: Vec<ClassPrior> = classes
            .iter()
            .map(|class| {
                let factor =
                    |slope: f64| if class.ln_covariate == 0.0 { 1.0 } else { (slope * class.ln_covariate).exp() };
                let factors = (factor(shared.exposure_slope), factor(shared.capture_slope));
                let mean = params.exposure[class.batch] * factors.0;
                let of = |gamma: &UnitGamma, grid: &Grid, mean: f64| match exact {
                    true => gamma.densities(grid, mean),
                    false => gamma.masses(grid, mean),
                };
                let usual = of(&gamma, &EXPOSURES, mean);
                let stray = of(&strays, &EXPOSURES, STRAY_MEAN * mean);
                let exposure: Vec<f64> =
                    usual.iter().zip(&stray).map(|(u, s)| (1.0 - STRAYS) * u + STRAYS * s).collect();
                let capture = if is_carried {
                    of(&of_capture, &CAPTURES, params.capture[class.batch] * factors.1)
                } else {
                    (0..CAPTURES.n).map(|l| f64::from(u8::from(l == CAPTURES.n / 2))).collect()
                };
                let exposure_below = below((0..exposures.len()).map(|k| {
                    let usual = (1.0 - STRAYS) * usual[k];
                    [exposure[k], usual, usual * exposures[k], usual * EXPOSURES.ln_at(k)]
                }));
                let capture_below = below(
                    (0..captures.len()).map(|l| [capture[l], capture[l] * captures[l], capture[l] * CAPTURES.ln_at(l)]),
                );
                ClassPrior { exposure, capture, exposure_below, capture_below, factors, zero: Zero::default() }
            })
            .collect();
        let range = |n: usize, mass: &dyn Fn(&ClassPrior, usize) -> f64| {
            let used = |i: &usize| priors.iter().any(|class| mass(class, *i) > NEGLIGIBLE);
            let first = (0..n).find(used).unwrap_or(0);
            (first, (0..n).rev().find(used).map_or(n, |last| last + 1))
        };
        let exposure_range = range(exposures.len(), &|class, i| class.exposure[i]);
        let capture_range = range(captures.len(), &|class, i| class.capture[i]);

        let size = shared.ambient_size;
        let burst_zero = shared.burst.ln_1p() / shared.burst;
        let shares = binned(&params.share);
        let of_ambient: Vec<(f64, f64)> = (0..exposures.len())
            .into_par_iter()
            .map(|i| {
                if i < exposure_range.0 || i >= exposure_range.1 {
                    return (0.0, 0.0);
                }
                let e = exposures[i];
                let (mut ln_zero, mut reach) = (0.0, 0.0);
                for &(q, n) in &shares {
                    let mean = e * q;
                    ln_zero -= n * size * ln_1p(mean / size);
                    reach += n * q * size / (size + mean);
                }
                // Bursts of ambient UMIs; shares sum to 1.
                (ln_zero - shared.clumping * e * burst_zero, reach + shared.clumping * burst_zero)
            })
            .collect();
        let (ln_zero_ambient, reach): (Vec<f64>, Vec<f64>) = of_ambient.into_iter().unzip();

        let signal = match signal {
            Some(signal) if signal.range == capture_range => signal.clone(),
            _ => Arc::new(Signal::new(params, &captures, capture_range)),
        };
        let ln_none = params.ln_none();
        let none = ln_none.exp();
        let mut tables = Self {
            classes: vec![],
            exposures,
            captures,
            exposure_range,
            capture_range,
            zero_ambient: ln_zero_ambient.iter().map(|ln| ln.exp()).collect(),
            ln_zero_ambient,
            reach,
            signal,
            ln_weight: (1.0 + (shared.empty_weight - 1.0) * none).ln(),
            ln_none,
            burst_zero,
        };
        for class in &mut priors {
            class.zero = tables.zero(class, shared.empty_weight, none);
        }
        tables.classes = priors;
        tables
    }

    fn zero(&self, class: &ClassPrior, empty_weight: f64, none: f64) -> Zero {
        let sum = |mass: &[f64], ln: &[f64], (from, to): (usize, usize)| -> f64 {
            (from..to).map(|i| mass[i] * ln[i].exp()).sum()
        };
        let ambient = sum(&class.exposure, &self.ln_zero_ambient, self.exposure_range);
        let any = ambient * sum(&class.capture, &self.signal.ln_zero, self.capture_range);
        let empty = ambient * none;
        let all = any + (empty_weight - 1.0) * empty;
        Zero { probability: (all * (-self.ln_weight).exp()).clamp(0.0, 1.0), any, empty }
    }
}

impl Signal {
    fn new(params: &Params, captures: &[f64], range: (usize, usize)) -> Self {
        let signal_size = params.shared.signal_size;
        let (n_guides, n_captures) = (params.n_guides(), captures.len());
        let mut hidden = vec![0.0; n_guides * n_captures];
        let mut rate = vec![0.0; n_guides * n_captures];
        hidden.par_chunks_mut(n_captures).zip(rate.par_chunks_mut(n_captures)).enumerate().for_each(
            |(g, (hidden, rate))| {
                let (pi, f) = (params.prior[g], params.efficiency[g]);
                for l in range.0..range.1 {
                    let mean = captures[l] * f;
                    let carried = pi * (-signal_size * ln_1p(mean / signal_size)).exp();
                    hidden[l] = carried / (1.0 - pi + carried);
                    rate[l] = mean / (signal_size + mean);
                }
            },
        );
        let of_signal: Vec<(f64, f64)> = (0..n_captures)
            .into_par_iter()
            .map(|l| {
                if l < range.0 || l >= range.1 {
                    return (0.0, 0.0);
                }
                let (mut ln_zero, mut captured) = (0.0, 0.0);
                for g in 0..n_guides {
                    let at = g * n_captures + l;
                    ln_zero += ln_1p(-params.prior[g]) - ln_1p(-hidden[at]);
                    // d f r / (r + d f) is r times the rate.
                    captured += hidden[at] * signal_size * rate[at];
                }
                (ln_zero, captured)
            })
            .collect();
        let (ln_zero, hidden_capture): (Vec<f64>, Vec<f64>) = of_signal.into_iter().unzip();
        Self {
            range,
            zero: ln_zero.iter().map(|ln| ln.exp()).collect(),
            ln_zero,
            hidden_capture,
            hidden,
            rate,
            size: signal_size,
            ln_rise: (0..TABLED).map(|y| ln_rise(y as f64, signal_size)).collect(),
        }
    }

    /// ln of Gamma(r + y) / (Gamma(r) y!).
    pub fn ln_rise_of(&self, y: f64) -> f64 {
        self.ln_rise.get(y as usize).copied().unwrap_or_else(|| ln_rise(y, self.size))
    }
}

/// Shares that differ by less than this factor are taken together, where there are more guides than this.
const ALIKE: f64 = 1.02;
const MANY_GUIDES: usize = 1000;

/// Mean shares, and how many guides have about each.
fn binned(shares: &[f64]) -> Vec<(f64, f64)> {
    if shares.len() <= MANY_GUIDES {
        return shares.iter().map(|&q| (q, 1.0)).collect();
    }
    let mut bins: BTreeMap<i32, (f64, f64)> = BTreeMap::new();
    for &q in shares {
        let bin = bins.entry((q.ln() / ALIKE.ln()) as i32).or_default();
        *bin = (bin.0 + q, bin.1 + 1.0);
    }
    bins.into_values().map(|(sum, n)| (sum / n, n)).collect()
}

/// Sums of all before each, and of all.
fn below<const N: usize>(values: impl Iterator<Item = [f64; N]>) -> Vec<[f64; N]> {
    let mut sum = [0.0; N];
    let mut sums = vec![sum];
    for value in values {
        sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
        sums.push(sum);
    }
    sums
}

/// Of such sums, that up to a place in halves of nodes: 2 i is before node i, 2 i + 1 its middle.
pub fn up_to<const N: usize>(sums: &[[f64; N]], place: usize) -> [f64; N] {
    let low = sums[place / 2];
    if place % 2 == 0 {
        return low;
    }
    let high = &sums[place / 2 + 1];
    std::array::from_fn(|i| 0.5 * (low[i] + high[i]))
}

fn ln_rise(y: f64, size: f64) -> f64 {
    ln_gamma(size + y) - ln_gamma(size) - ln_factorial(y)
}
