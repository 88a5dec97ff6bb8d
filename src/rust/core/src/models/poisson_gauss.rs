//! poisson_gauss: per guide, all cells, zeros included.
//!
//!   background  y ~ Poisson(lambda)
//!   signal      y = a log-normal(mu, sigma) rounded to whole counts:
//!               P(y) = Phi((ln(y + 1/2) - mu) / sigma) - Phi((ln(y - 1/2) - mu) / sigma),  the lower bound -inf at y = 0
//!
//! Both are masses on the same counts. Replogle et al. 2020 (doi:10.1038/s41587-020-0470-y) fit a Poisson and a Gaussian
//! to log2 counts without zeros; the rounding puts the Gaussian of log counts on the scale of the Poisson.
//!
//! The signal is a population of its own: its mode exp(mu - sigma^2) lies above the background, at least at
//! 1 + l + 3 sqrt(l), where l is the Poisson mean that would leave as many zeros as there are. Without that bound a wide
//! log-normal explains overdispersed ambient counts and calls them all.
//!
//! M-step: lambda is the weighted mean; mu and sigma take one EM step for interval-censored normal data (moments of the
//! truncated normal), within the bound, which raises the likelihood.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_gamma, ln_normal_mass, truncated_normal_moments};
use crate::Result;

/// Smallest lambda: one background UMI in 10^9 cells. Keeps ln lambda finite where the background is zero.
const LEAST_LAMBDA: f64 = 1e-9;
/// Smallest sigma, in ln UMIs: below it the rounding hides the spread of any count that is seen.
const LEAST_SIGMA: f64 = 0.01;

/// A background count in fewer cells than this is not where a population of carriers has its mode.
const RARE: f64 = 4e-3;

pub struct PoissonGauss;

impl Model for PoissonGauss {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "poisson_gauss",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: false,
            uses_depth: false,
            about: "Poisson background, log-normal signal on whole counts",
            when: "The default: any UMI library in which cells have similar depth.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(self, counts, control, progress, false)
    }
}

#[derive(Debug, Clone)]
pub struct Params {
    lambda: f64,
    mu: f64,
    sigma: f64,
    /// Lower bound of mu - sigma^2; from the data, not fitted.
    least_ln_mode: f64,
}

impl Params {
    /// The highest likelihood within the bound, from the mean and mean square of ln UMIs.
    fn set_signal(&mut self, mean: f64, square: f64) {
        let variance = (square - mean * mean).max(LEAST_SIGMA * LEAST_SIGMA);
        (self.mu, self.sigma) = (mean, variance.sqrt());
        if mean - variance < self.least_ln_mode {
            // On the bound mu = c + v with v = sigma^2, where v^2 + v = E(x - c)^2.
            let c = self.least_ln_mode;
            let around = (square - 2.0 * c * mean + c * c).max(0.0);
            let v = (0.5 * ((1.0 + 4.0 * around).sqrt() - 1.0)).max(LEAST_SIGMA * LEAST_SIGMA);
            (self.mu, self.sigma) = (c + v, v.sqrt());
        }
    }
}

/// The interval of ln UMIs that rounds to y, in standard units.
fn bounds(y: f64, mu: f64, sigma: f64) -> (f64, f64) {
    let low = if y > 0.0 { ((y - 0.5).ln() - mu) / sigma } else { f64::NEG_INFINITY };
    (low, ((y + 0.5).ln() - mu) / sigma)
}

/// The count that the background reaches in `RARE` of the cells, if its zeros, ones and twos are those of a negative
/// binomial: with ratios a = P(1) / P(0) and b = P(2) / P(1) its odds are q = 2 b - a and its size is a / q. Carriers, who have
/// more, do not enter the ratios. Where there are no zeros the lower half of the counts is taken as Poisson.
fn above_background(obs: &[Obs]) -> f64 {
    let cells = |y: f64| obs.iter().filter(|o| o.y == y).map(|o| o.n).sum::<f64>();
    let [n0, n1, n2] = [0.0, 1.0, 2.0].map(cells);
    if n0 == 0.0 {
        let l = smallest_half(obs);
        return 1.0 + l + 3.0 * l.sqrt();
    }
    // Half a cell keeps the ratios finite.
    let (a, b) = ((n1 + 0.5) / (n0 + 0.5), (n2 + 0.5) / (n1 + 0.5).max(n2 + 0.5));
    let q = (2.0 * b - a).clamp(1e-3, 0.9);
    let size = a / q;
    let mut mass = (1.0 - q).powf(size);
    let mut beyond = 1.0 - mass;
    let mut y = 1.0;
    while beyond > RARE && y < 1e4 {
        mass *= q * (size + y - 1.0) / y;
        beyond -= mass;
        y += 1.0;
    }
    y
}

/// Mean of the lower half of the counts.
fn smallest_half(obs: &[Obs]) -> f64 {
    let half = 0.5 * obs.iter().map(|o| o.n).sum::<f64>();
    let (mut n, mut sum) = (0.0, 0.0);
    // Sorted by y.
    for o in obs {
        let take = o.n.min(half - n);
        n += take;
        sum += take * o.y;
    }
    sum / n.max(1.0)
}

impl Mixture for PoissonGauss {
    type Params = Params;

    fn components(&self) -> usize {
        2
    }

    fn start(&self, obs: &[Obs]) -> Params {
        // The first M-step takes lambda from the cut; mu and sigma start wide.
        let positive = obs.iter().filter(|o| o.y > 0.0);
        let (n, sum) = positive.fold((0.0, 0.0), |(n, sum), o| (n + o.n, sum + o.n * o.y.ln()));
        let mu = if n > 0.0 { sum / n } else { 0.0 };
        Params { lambda: 1.0, mu, sigma: 1.0, least_ln_mode: above_background(obs).ln() }
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn ln_density(&self, p: &Params, o: &Obs) -> [f64; MOST] {
        let (a, b) = bounds(o.y, p.mu, p.sigma);
        [o.y * p.lambda.ln() - p.lambda - ln_gamma(o.y + 1.0), ln_normal_mass(a, b), 0.0]
    }

    fn m_step(&self, p: &mut Params, obs: &[Obs], weight: &[[f64; MOST]]) {
        let (mut n0, mut sum0) = (0.0, 0.0);
        let (mut n1, mut mean1, mut square1) = (0.0, 0.0, 0.0);
        for (o, w) in obs.iter().zip(weight) {
            n0 += w[0];
            sum0 += w[0] * o.y;
            if w[1] > 0.0 {
                let (a, b) = bounds(o.y, p.mu, p.sigma);
                let (mean, square) = truncated_normal_moments(a, b);
                n1 += w[1];
                mean1 += w[1] * mean;
                square1 += w[1] * square;
            }
        }
        if n0 > 0.0 {
            p.lambda = (sum0 / n0).max(LEAST_LAMBDA);
        }
        if n1 > 0.0 {
            let (mean, square) = (mean1 / n1, square1 / n1);
            let (mu, sigma) = (p.mu, p.sigma);
            p.set_signal(mu + sigma * mean, mu * mu + 2.0 * mu * sigma * mean + sigma * sigma * square);
        }
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        [p.lambda, (p.mu + 0.5 * p.sigma * p.sigma).exp()][k]
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        vec![p.lambda.ln(), p.mu, p.sigma.ln()]
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        p.lambda = x[0].exp().max(LEAST_LAMBDA);
        let variance = (2.0 * x[2]).exp();
        p.set_signal(x[1], x[1] * x[1] + variance);
    }

    fn n_free(&self, components: usize) -> usize {
        [1, 3][components - 1]
    }

    fn names(&self) -> Vec<String> {
        ["lambda", "mu", "sigma"].map(String::from).to_vec()
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        vec![p.lambda, p.mu, p.sigma]
    }

    fn monotone_around(&self, p: &Params) -> Option<f64> {
        // The median of the signal; the mean of a wide log-normal lies beyond most of its cells.
        Some(p.mu.exp().max(p.lambda))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&PoissonGauss, 1);
    }
}
