//! neg_binomial: per guide, y ~ NB(mean mu, size theta), variance mu + mu^2 / theta, with ln mu = b0 + b1 z + gamma_b + ln D
//! over all cells with guide UMIs, zeros included (grouped by batch and depth). theta is shared by both components, so
//! that the posterior rises with the count.
//!
//! Poisson's model with overdispersion, as in crispat; gamma_b as in `glm`.
//!
//! M-step: Newton on the means given theta (concave in the linear predictor), then one safeguarded Newton step on ln
//! theta, with the digamma terms summed over equal counts.
use super::glm::Rates;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{digamma, ln_gamma, trigamma};
use crate::Result;

/// Bounds of theta: below, hardly any cell has counts at all; above, the law is Poisson to six digits.
const THETA: (f64, f64) = (1e-3, 1e6);

pub struct NegBinomial;

impl Model for NegBinomial {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "neg_binomial",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: true,
            uses_depth: true,
            about: "Negative binomial mixture with depth and batch effects",
            when: "Counts of cells with the guide spread over orders of magnitude, or much ambient signal.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(&Family { n_batches: counts.n_batches() }, counts, control, progress, true)
    }
}

struct Family {
    n_batches: usize,
}

#[derive(Debug, Clone)]
pub struct Params {
    rates: Rates,
    theta: f64,
}

impl Params {
    fn mu(&self, o: &Obs, k: usize) -> f64 {
        o.depth * self.rates.eta(k, o.batch).exp()
    }
}

/// The terms of the log mass that hold y and theta alone.
fn ln_gamma_ratio(y: f64, theta: f64) -> f64 {
    if y > 0.0 {
        ln_gamma(y + theta) - ln_gamma(theta)
    } else {
        0.0
    }
}

/// The terms that hold mu: theta ln(theta / (theta + mu)) + y ln(mu / (theta + mu)).
fn ln_mean_part(y: f64, mu: f64, theta: f64) -> f64 {
    let total = (theta + mu).ln();
    // With theta far above mu the ratio is 1 to all digits; ln_1p keeps what is left.
    let background = -theta * (mu / theta).ln_1p();
    if y > 0.0 {
        background + y * (mu.ln() - total)
    } else {
        background
    }
}

impl Family {
    /// Expected log-likelihood in theta, its slope and second derivative in ln theta.
    fn in_theta(&self, p: &Params, theta: f64, obs: &[Obs], weight: &[[f64; MOST]]) -> (f64, f64, f64) {
        let (mut value, mut slope, mut second) = (0.0, 0.0, 0.0);
        let (digamma_0, trigamma_0) = (digamma(theta), trigamma(theta));
        let mut i = 0;
        while i < obs.len() {
            // Equal counts stand together: one digamma for all of them.
            let y = obs[i].y;
            let mut n = 0.0;
            while i < obs.len() && obs[i].y == y {
                for k in 0..2 {
                    let w = weight[i][k];
                    if w > 0.0 {
                        let mu = p.mu(&obs[i], k);
                        let total = theta + mu;
                        n += w;
                        value += w * ln_mean_part(y, mu, theta);
                        slope += w * (1.0 - (y + theta) / total - (mu / theta).ln_1p());
                        second += w * (mu / (theta * total) - (mu - y) / (total * total));
                    }
                }
                i += 1;
            }
            if y > 0.0 {
                value += n * ln_gamma_ratio(y, theta);
                slope += n * (digamma(y + theta) - digamma_0);
                second += n * (trigamma(y + theta) - trigamma_0);
            }
        }
        (value, theta * slope, theta * slope + theta * theta * second)
    }

    fn step_theta(&self, p: &mut Params, obs: &[Obs], weight: &[[f64; MOST]]) {
        let (value, slope, second) = self.in_theta(p, p.theta, obs, weight);
        let mut step = if second < 0.0 { -slope / second } else { slope.signum() }.clamp(-1.5, 1.5);
        for _ in 0..6 {
            let theta = (p.theta * step.exp()).clamp(THETA.0, THETA.1);
            if theta == p.theta || step.abs() < 1e-9 {
                return;
            }
            if self.in_theta(p, theta, obs, weight).0 >= value {
                p.theta = theta;
                return;
            }
            step *= 0.25;
        }
    }
}

impl Mixture for Family {
    type Params = Params;

    fn components(&self) -> usize {
        2
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params { rates: Rates::new(self.n_batches), theta: 2.0 }
    }

    fn ln_const(&self, y: f64, _: f64) -> f64 {
        -ln_gamma(y + 1.0)
    }

    fn ln_density(&self, p: &Params, o: &Obs) -> [f64; MOST] {
        let shared = ln_gamma_ratio(o.y, p.theta);
        let ln_mass = |k| shared + ln_mean_part(o.y, p.mu(o, k), p.theta);
        [ln_mass(0), ln_mass(1), 0.0]
    }

    fn m_step(&self, p: &mut Params, obs: &[Obs], weight: &[[f64; MOST]]) {
        let theta = p.theta;
        let one_batch = p.rates.gamma.is_empty();
        p.rates.ascend(|rates| {
            let mut slopes = vec![[[0.0; 2]; 2]; rates.gamma.len().max(1)];
            for (o, w) in obs.iter().zip(weight) {
                let cell = &mut slopes[if one_batch { 0 } else { o.batch as usize }];
                for k in 0..2 {
                    if w[k] > 0.0 {
                        let mu = o.depth * rates.eta(k, o.batch).exp();
                        let ratio = theta / (theta + mu);
                        cell[k][0] += w[k] * (o.y - mu) * ratio;
                        cell[k][1] += w[k] * mu * ratio * (o.y + theta) / (theta + mu);
                    }
                }
            }
            slopes
        });
        self.step_theta(p, obs, weight);
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.rates.b[k]
    }

    fn reorder(&self, p: &mut Params, _: &[usize]) -> bool {
        p.rates.swap();
        true
    }

    fn ln_prior(&self, p: &Params) -> f64 {
        p.rates.ln_prior()
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        let mut x = p.rates.pack();
        x.push(p.theta.ln());
        x
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        let (rates, theta) = x.split_at(x.len() - 1);
        p.rates.unpack(rates);
        p.theta = theta[0].exp().clamp(THETA.0, THETA.1);
    }

    fn n_free(&self, components: usize) -> usize {
        components + 1
    }

    fn names(&self) -> Vec<String> {
        let mut names = Rates::names(self.n_batches);
        names.insert(2, "theta".into());
        names
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        let mut values = p.rates.values();
        values.insert(2, p.theta);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&Family { n_batches: 1 }, 1);
        laws::all(&Family { n_batches: 2 }, 2);
    }
}
