//! The parameters of the model, their bounds and their priors.
use super::tables::NEVER;
use crate::special::{ln_1p, ln_gamma};

/// What the whole screen shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shared {
    /// Sizes of the negative binomials of ambient and signal UMIs.
    pub ambient_size: f64,
    pub signal_size: f64,
    /// Shapes of the gammas of exposure and capture.
    pub exposure_shape: f64,
    pub capture_shape: f64,
    /// Chimeric UMIs for each UMI of the cell in guides with more UMIs.
    pub hopping: f64,
    /// Mean UMIs of a burst of chimeras beyond the first.
    pub burst: f64,
    /// Ambient UMIs that come in such bursts, too, for each that does not.
    pub clumping: f64,
    /// Powers of the covariate in exposure and capture.
    pub exposure_slope: f64,
    pub capture_slope: f64,
    /// Odds of the cell without any guide over what independent guides make them.
    pub empty_weight: f64,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            ambient_size: 2.0,
            signal_size: 2.0,
            exposure_shape: 2.0,
            capture_shape: 8.0,
            hopping: 0.005,
            burst: 0.3,
            clumping: 0.005,
            exposure_slope: 0.0,
            capture_slope: 0.0,
            empty_weight: 1.0,
        }
    }
}

/// A shared parameter that is found by search.
pub struct Param {
    pub name: &'static str,
    pub at: fn(&mut Shared) -> &mut f64,
    pub bounds: (f64, f64),
    /// Log-normal prior: median and standard deviation. A normal prior with mean 0 for a slope.
    pub prior: (f64, f64),
    /// Slopes are searched as they are, all others as logarithms.
    pub is_slope: bool,
    /// Sizes and shapes end in a limit of the model when they are large, all others when they are small.
    pub is_size: bool,
    /// Whether it acts through the signal alone.
    pub of_signal: bool,
    /// Whether it is of chimeras, which the screen without carriers takes over.
    pub of_chimeras: bool,
    /// Whether the M-step moves it, too.
    pub by_em: bool,
    /// First step of the search.
    pub step: f64,
}

impl Param {
    pub fn get(&self, shared: &Shared) -> f64 {
        let mut copy = *shared;
        *(self.at)(&mut copy)
    }

    /// `value` so much further, in logs but for slopes, within its bounds.
    pub fn moved(&self, value: f64, offset: f64) -> f64 {
        let to = if self.is_slope { value + offset } else { value * offset.exp() };
        to.clamp(self.bounds.0, self.bounds.1)
    }

    /// How far it is from one value to another.
    pub fn offset(&self, from: f64, to: f64) -> f64 {
        if self.is_slope {
            to - from
        } else {
            (to / from).ln()
        }
    }

    /// Whether it is at the bound beyond which the model would no longer hold; at the other one it is a limit of the model, such as
    /// the Poisson.
    pub fn is_at_bound(&self, shared: &Shared) -> bool {
        let bound = if self.is_size { self.bounds.0 } else { self.bounds.1 };
        (self.get(shared) - bound).abs() <= 1e-6 * bound
    }

    /// Log density of the prior, without its constant.
    fn ln_prior(&self, shared: &Shared) -> f64 {
        let value = self.get(shared);
        let off = if self.is_slope { value } else { (value / self.prior.0).ln() };
        -0.5 * (off / self.prior.1).powi(2)
    }
}

const fn param(
    name: &'static str,
    at: fn(&mut Shared) -> &mut f64,
    bounds: (f64, f64),
    prior: (f64, f64),
    of_signal: bool,
    by_em: bool,
    step: f64,
) -> Param {
    Param {
        name,
        at,
        bounds,
        prior,
        is_slope: false,
        is_size: bounds.1 > 100.0,
        of_signal,
        of_chimeras: false,
        by_em,
        step,
    }
}

const fn slope(name: &'static str, at: fn(&mut Shared) -> &mut f64, of_signal: bool) -> Param {
    Param {
        name,
        at,
        bounds: (0.0, 1.5),
        prior: (0.0, 1.0),
        is_slope: true,
        is_size: false,
        of_signal,
        of_chimeras: false,
        by_em: false,
        step: 0.3,
    }
}

/// Places of the shapes in [`SEARCHED`].
pub const EXPOSURE_SHAPE: usize = 2;
pub const CAPTURE_SHAPE: usize = 3;

pub static SEARCHED: [Param; 9] = [
    param("ambient_size", |s| &mut s.ambient_size, (0.05, 1e3), (2.0, 1.5), false, false, 0.5),
    param("signal_size", |s| &mut s.signal_size, (0.25, 1e3), (2.0, 1.0), true, false, 0.35),
    param("exposure_shape", |s| &mut s.exposure_shape, (0.2, 1e3), (2.0, 1.0), false, true, 0.5),
    param("capture_shape", |s| &mut s.capture_shape, (0.3, 1e3), (8.0, 1.0), true, true, 0.5),
    Param { of_chimeras: true, ..param("hopping", |s| &mut s.hopping, (1e-6, 0.2), (0.005, 1.5), false, false, 0.7) },
    Param { of_chimeras: true, ..param("burst", |s| &mut s.burst, (0.02, 20.0), (0.3, 1.0), false, false, 0.6) },
    param("clumping", |s| &mut s.clumping, (1e-6, 1.0), (0.005, 1.5), false, false, 0.7),
    slope("exposure_slope", |s| &mut s.exposure_slope, false),
    slope("capture_slope", |s| &mut s.capture_slope, true),
];

/// Standard deviation of the logarithm of the weight of the empty cell.
pub const EMPTY_SD: f64 = 1.0;

/// Everything that is fitted.
#[derive(Clone)]
pub struct Params {
    pub shared: Shared,
    /// Probability that a cell carries the guide.
    pub prior: Vec<f64>,
    /// Of ambient UMIs; sums to 1.
    pub share: Vec<f64>,
    /// Signal UMIs of a carrier of capture 1.
    pub efficiency: Vec<f64>,
    /// Of all UMIs; it is counted, not fitted.
    pub library: Vec<f64>,
    /// Mean exposure and capture of each batch; captures are 1 on average.
    pub exposure: Vec<f64>,
    pub capture: Vec<f64>,
    /// Gamma prior of the efficiencies: mean and shape.
    pub efficiency_mean: f64,
    pub efficiency_shape: f64,
    /// Beta prior of the priors, by its mean.
    pub prior_mean: f64,
}

/// What the priors of guides weigh: cells, ambient UMIs of the average guide.
pub const PRIOR_CELLS: f64 = 0.5;
pub const SHARE_UMIS: f64 = 0.5;

impl Params {
    pub fn n_guides(&self) -> usize {
        self.prior.len()
    }

    /// Moves the searched parameters.
    pub fn shift(&mut self, offsets: &[f64; SEARCHED.len()]) {
        for (param, &offset) in SEARCHED.iter().zip(offsets) {
            let value = (param.at)(&mut self.shared);
            if offset != 0.0 {
                *value = param.moved(*value, offset);
            }
        }
    }

    /// Whether this explains the screen otherwise: sizes or shapes differ by half, or the mean prior.
    pub fn is_apart(&self, other: &Self) -> bool {
        let differ = |a: f64, b: f64| (a / b).ln().abs() > 0.4;
        let sizes = SEARCHED.iter().filter(|param| param.is_size);
        let carriers = |params: &Self| params.prior.iter().sum::<f64>();
        sizes.into_iter().any(|param| differ(param.get(&self.shared), param.get(&other.shared)))
            || differ(carriers(self), carriers(other))
    }

    /// To the geometric mean of these and others.
    pub fn halve_towards(&mut self, other: &Self) {
        let halve = |to: &mut f64, other: f64| *to = (*to * other).sqrt();
        let lists = [
            (&mut self.prior, &other.prior),
            (&mut self.share, &other.share),
            (&mut self.efficiency, &other.efficiency),
            (&mut self.exposure, &other.exposure),
            (&mut self.capture, &other.capture),
        ];
        for (to, other) in lists {
            to.iter_mut().zip(other).for_each(|(to, &other)| halve(to, other));
        }
        let total: f64 = self.share.iter().sum();
        self.share.iter_mut().for_each(|q| *q /= total);
        for param in SEARCHED.iter().filter(|param| !param.is_slope) {
            let value = param.get(&other.shared);
            halve((param.at)(&mut self.shared), value);
        }
        halve(&mut self.shared.empty_weight, other.shared.empty_weight);
    }

    /// ln of the probability that independent guides leave a cell empty.
    pub fn ln_none(&self) -> f64 {
        self.prior.iter().map(|&pi| ln_1p(-pi)).sum()
    }

    /// Mean UMIs of a carrier of average capture.
    pub fn mean_signal(&self) -> f64 {
        let carriers: f64 = self.prior.iter().sum();
        self.prior.iter().zip(&self.efficiency).map(|(pi, f)| pi * f).sum::<f64>() / carriers
    }

    /// Log density of all priors, without what stays constant.
    pub fn ln_prior(&self) -> f64 {
        let shared: f64 = SEARCHED.iter().map(|param| param.ln_prior(&self.shared)).sum();
        let empty = -0.5 * (self.shared.empty_weight.ln() / EMPTY_SD).powi(2);
        let n_guides = self.n_guides() as f64;
        // Densities of logit pi, of ln f (both with their constants, as what they are centred at is refreshed), and of q.
        let (one, other) = (PRIOR_CELLS, PRIOR_CELLS * (1.0 / self.prior_mean - 1.0));
        let of_beta = ln_gamma(one + other) - ln_gamma(one) - ln_gamma(other);
        let shape = self.efficiency_shape;
        let of_gamma = shape * shape.ln() - ln_gamma(shape);
        let mut guides = 0.0;
        for g in 0..self.n_guides() {
            if self.prior[g] > NEVER {
                guides += of_beta + one * self.prior[g].ln() + other * ln_1p(-self.prior[g]);
                let ratio = self.efficiency[g] / self.efficiency_mean;
                guides += of_gamma + shape * (ratio.ln() - ratio);
            }
            guides += SHARE_UMIS * n_guides * self.library[g].max(1e-12) * self.share[g].ln();
        }
        shared + empty + guides
    }
}
