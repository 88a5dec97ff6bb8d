//! neg_binomial: per guide, y ~ NB(mean mu, size theta), variance mu + mu^2 / theta, with ln mu = b0 + b1 z + gamma_b + ln D
//! over all cells with guide UMIs, zeros included (grouped by batch and depth). Background and signal have a theta each.
//!
//! Poisson's model with overdispersion, as in crispat; gamma_b as in `glm`.
//!
//! M-step: Newton on the means given theta (concave in the linear predictor), then for each component one safeguarded
//! Newton step on ln theta, with the digamma terms summed over equal counts.
//!
//! One UMI more changes the log odds of the signal by ln((y + theta1) p1) - ln((y + theta0) p0) with p = mu / (theta + mu),
//! which changes its sign once at most. Beyond that count the odds are held.
use super::glm::Rates;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{digamma, ln_gamma, trigamma};
use crate::Result;

/// Bounds of the thetas. Below, hardly any cell has counts at all; above, the law is Poisson to six digits. The signal is
/// held wider: a guide's count is most of its own depth, so that cells of one guide look alike in y / D, and those of two guides
/// would seem to have too few.
const THETA: [(f64, f64); 2] = [(1e-3, 1e6), (1e-3, 3.0)];

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
    theta: [f64; 2],
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
    /// Expected log-likelihood of component k in its theta, its slope and second derivative in ln theta.
    fn in_theta(&self, p: &Params, k: usize, theta: f64, obs: &[Obs], weight: &[[f64; MOST]]) -> (f64, f64, f64) {
        let (mut value, mut slope, mut second) = (0.0, 0.0, 0.0);
        let (digamma_0, trigamma_0) = (digamma(theta), trigamma(theta));
        let mut i = 0;
        while i < obs.len() {
            // Equal counts stand together: one digamma for all of them.
            let y = obs[i].y;
            let mut n = 0.0;
            while i < obs.len() && obs[i].y == y {
                let w = weight[i][k];
                if w > 0.0 {
                    let mu = p.mu(&obs[i], k);
                    let total = theta + mu;
                    n += w;
                    value += w * ln_mean_part(y, mu, theta);
                    slope += w * (1.0 - (y + theta) / total - (mu / theta).ln_1p());
                    second += w * (mu / (theta * total) - (mu - y) / (total * total));
                }
                i += 1;
            }
            if y > 0.0 && n > 0.0 {
                value += n * ln_gamma_ratio(y, theta);
                slope += n * (digamma(y + theta) - digamma_0);
                second += n * (trigamma(y + theta) - trigamma_0);
            }
        }
        (value, theta * slope, theta * slope + theta * theta * second)
    }

    fn step_theta(&self, p: &mut Params, k: usize, obs: &[Obs], weight: &[[f64; MOST]]) {
        let here = p.theta[k];
        let (value, slope, second) = self.in_theta(p, k, here, obs, weight);
        let mut step = if second < 0.0 { -slope / second } else { slope.signum() }.clamp(-1.5, 1.5);
        for _ in 0..6 {
            let theta = (here * step.exp()).clamp(THETA[k].0, THETA[k].1);
            if theta == here || step.abs() < 1e-9 {
                return;
            }
            if self.in_theta(p, k, theta, obs, weight).0 >= value {
                p.theta[k] = theta;
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
        Params { rates: Rates::new(self.n_batches), theta: [2.0, 2.0] }
    }

    fn ln_const(&self, y: f64, _: f64) -> f64 {
        -ln_gamma(y + 1.0)
    }

    fn ln_density(&self, p: &Params, o: &Obs) -> [f64; MOST] {
        let ln_mass = |k| ln_gamma_ratio(o.y, p.theta[k]) + ln_mean_part(o.y, p.mu(o, k), p.theta[k]);
        [ln_mass(0), ln_mass(1), 0.0]
    }

    fn judged_as(&self, p: &Params, o: &Obs) -> Obs {
        let odds = |k: usize| {
            let mu = p.mu(o, k);
            (p.theta[k], mu / (p.theta[k] + mu))
        };
        let ((t0, p0), (t1, p1)) = (odds(0), odds(1));
        let turn = ((t0 * p0 - t1 * p1) / (p1 - p0)).ceil();
        let y = if t1 > t0 && p1 < p0 {
            o.y.min(turn)
        } else if t1 < t0 && t1 * p1 < t0 * p0 {
            o.y.max(turn)
        } else {
            o.y
        };
        Obs { y, ..*o }
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
                        let theta = theta[k];
                        let ratio = theta / (theta + mu);
                        cell[k][0] += w[k] * (o.y - mu) * ratio;
                        cell[k][1] += w[k] * mu * ratio * (o.y + theta) / (theta + mu);
                    }
                }
            }
            slopes
        });
        self.step_theta(p, 0, obs, weight);
        self.step_theta(p, 1, obs, weight);
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.rates.b[k]
    }

    fn reorder(&self, p: &mut Params, _: &[usize]) -> bool {
        p.rates.swap();
        p.theta.swap(0, 1);
        true
    }

    fn ln_prior(&self, p: &Params) -> f64 {
        p.rates.ln_prior()
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        let mut x = p.rates.pack();
        x.extend(p.theta.map(f64::ln));
        x
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        let (rates, theta) = x.split_at(x.len() - 2);
        p.rates.unpack(rates);
        for k in 0..2 {
            p.theta[k] = theta[k].exp().clamp(THETA[k].0, THETA[k].1);
        }
    }

    /// The theta of the signal is not counted: only the carriers tell of it, and in most guides it lies at its bound.
    fn n_free(&self, components: usize) -> usize {
        components + 1
    }

    fn names(&self) -> Vec<String> {
        let mut names = Rates::names(self.n_batches);
        names.insert(2, "theta_background".into());
        names.insert(3, "theta_signal".into());
        names
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        let mut values = p.rates.values();
        values.insert(2, p.theta[0]);
        values.insert(3, p.theta[1]);
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
