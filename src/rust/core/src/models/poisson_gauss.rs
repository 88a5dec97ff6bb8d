//! poisson_gauss: per guide, all cells, zeros included.
//!
//!   background  y ~ Poisson(lambda)
//!   signal      y = a log-normal(mu, sigma) rounded to whole counts:
//!               P(y) = Phi((ln(y + 1/2) - mu) / sigma) - Phi((ln(y - 1/2) - mu) / sigma),  the lower bound -inf at y = 0
//!
//! Both are masses on the same counts. Replogle et al. 2020 (doi:10.1038/s41587-020-0470-y) fit a Poisson and a Gaussian
//! to log2 counts without zeros; the rounding puts the Gaussian of log counts on the scale of the Poisson.
//!
//! M-step: lambda is the weighted mean; mu and sigma take one EM step for interval-censored normal data (moments of the
//! truncated normal), which raises the likelihood.
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
}

/// The interval of ln UMIs that rounds to y, in standard units.
fn bounds(y: f64, mu: f64, sigma: f64) -> (f64, f64) {
    let low = if y > 0.0 { ((y - 0.5).ln() - mu) / sigma } else { f64::NEG_INFINITY };
    (low, ((y + 0.5).ln() - mu) / sigma)
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
        Params { lambda: 1.0, mu: if n > 0.0 { sum / n } else { 0.0 }, sigma: 1.0 }
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
            p.mu += p.sigma * mean;
            p.sigma = (p.sigma * (square - mean * mean).max(0.0).sqrt()).max(LEAST_SIGMA);
        }
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        [p.lambda, (p.mu + 0.5 * p.sigma * p.sigma).exp()][k]
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        vec![p.lambda.ln(), p.mu, p.sigma.ln()]
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        *p = Params { lambda: x[0].exp().max(LEAST_LAMBDA), mu: x[1], sigma: x[2].exp().max(LEAST_SIGMA) };
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
