//! neg_binomial: per guide, y ~ NB(mean mu, size theta), variance mu + mu^2 / theta, with ln mu = b0 + b1 z + gamma_b + ln D
//! over all cells with guide UMIs, zeros included (grouped by batch and depth). Background and signal have a theta each.
//!
//! Poisson's model with overdispersion, as in crispat; gamma_b as in `glm`.
//!
//! M-step: for each component one safeguarded Newton step on ln theta, then Newton on the means given theta (concave in the
//! linear predictor).
//!
//! One UMI more changes the log odds of the signal by ln((y + theta1) p1) - ln((y + theta0) p0) with p = mu / (theta + mu),
//! which changes its sign once at most. Beyond that count the odds are held.
use super::glm::{Rates, Slopes};
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_1p, ln_factorial, LnRising, RisingSlopes};
use crate::Result;

/// Bounds of the thetas. Below, hardly any cell has counts at all; above, the law is Poisson to six digits. The signal is
/// held wider: a guide's count is most of its own depth, so that cells of one guide look alike in y / D, and those of two guides
/// would seem to have too few.
const THETA: [(f64, f64); 2] = [(1e-3, 1e6), (1e-3, 3.0)];

/// A Newton step on ln theta that is this short needs no look at whether the likelihood rose.
const SURE_STEP: f64 = 0.2;

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
        mixture::score_per_guide(&Family { n_batches: counts.n_batches() }, counts, control, progress)
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

impl Family {
    /// Expected log-likelihood of component k in its theta.
    fn value_in_theta(&self, p: &Params, k: usize, theta: f64, obs: &[Obs], weight: &[[f64; MOST]]) -> f64 {
        let rates = p.rates.exp_eta();
        let rising = LnRising::new(theta);
        let ln_theta = theta.ln();
        let of = |o: &Obs| {
            let mu = o.depth * rates[p.rates.row(o)][k];
            rising.at(o.y) - o.y * ln_theta - (theta + o.y) * ln_1p(mu / theta)
        };
        obs.iter().zip(weight).filter(|(_, w)| w[k] > 0.0).map(|(o, w)| w[k] * of(o)).sum()
    }

    /// Its slope and second derivative in ln theta. The rows hold ln(1 + mu / theta).
    fn slopes_in_theta(
        &self,
        p: &Params,
        k: usize,
        obs: &[Obs],
        weight: &[[f64; MOST]],
        rows: &[[f64; 2]],
    ) -> (f64, f64) {
        let (mut slope, mut second) = (0.0, 0.0);
        let rates = p.rates.exp_eta();
        let theta = p.theta[k];
        let over_theta = 1.0 / theta;
        let mut rising = RisingSlopes::new(theta);
        for ((o, w), row) in obs.iter().zip(weight).zip(rows) {
            let w = w[k];
            if w > 0.0 {
                let mu = o.depth * rates[p.rates.row(o)][k];
                let over = 1.0 / (theta + mu);
                let (of_y, second_of_y) = rising.to(o.y);
                let off = (mu - o.y) * over;
                slope += w * (off - row[k] + of_y);
                second += w * ((mu * over_theta - off) * over + second_of_y);
            }
        }
        (theta * slope, theta * slope + theta * theta * second)
    }

    fn step_theta(&self, p: &mut Params, k: usize, obs: &[Obs], weight: &[[f64; MOST]], rows: &[[f64; 2]]) {
        let here = p.theta[k];
        let (slope, second) = self.slopes_in_theta(p, k, obs, weight, rows);
        let mut step = if second < 0.0 { -slope / second } else { slope.signum() }.clamp(-1.5, 1.5);
        // Where no cell is in the component, there is nothing to step by.
        if step.is_nan() {
            return;
        }
        let to = |step: f64| (here * step.exp()).clamp(THETA[k].0, THETA[k].1);
        if step.abs() > SURE_STEP && to(step) != here {
            let value = |theta| self.value_in_theta(p, k, theta, obs, weight);
            let before = value(here);
            while step.abs() > SURE_STEP && value(to(step)) < before {
                step *= 0.25;
            }
        }
        p.theta[k] = to(step);
    }
}

impl Mixture for Family {
    type Params = Params;
    /// exp(eta), eta - ln theta, per batch and component; ln Gamma(theta + y) / Gamma(theta).
    type Table = (Vec<[f64; 2]>, Slopes, [LnRising; 2]);
    /// ln(1 + mu / theta) of each component.
    type Row = [f64; 2];

    fn components(&self) -> usize {
        2
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params { rates: Rates::new(self.n_batches), theta: [2.0, 2.0] }
    }

    fn ln_const(&self, y: f64, depth: f64) -> f64 {
        y * depth.ln() - ln_factorial(y)
    }

    fn table(&self, p: &Params) -> Self::Table {
        let rising = p.theta.map(LnRising::new);
        let ln_theta = p.theta.map(f64::ln);
        (p.rates.exp_eta(), p.rates.table(|k, batch| [p.rates.eta(k, batch as u32) - ln_theta[k], 0.0]), rising)
    }

    fn ln_density(&self, p: &Params, (rates, ln_odds, rising): &Self::Table, o: &Obs) -> ([f64; MOST], [f64; 2]) {
        let row = p.rates.row(o);
        let ln_ratio = [0, 1].map(|k| ln_1p(o.depth * rates[row][k] / p.theta[k]));
        let ln_mass = |k: usize| rising[k].at(o.y) + o.y * ln_odds[row][k][0] - (p.theta[k] + o.y) * ln_ratio[k];
        ([ln_mass(0), ln_mass(1), 0.0], ln_ratio)
    }

    fn judged_as(&self, p: &Params, o: &Obs) -> Obs {
        let odds = |k: usize| {
            let mu = o.depth * p.rates.eta(k, o.batch).exp();
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

    fn m_step(&self, p: &mut Params, obs: &[Obs], weight: &[[f64; MOST]], rows: &[[f64; 2]]) {
        // First the thetas, while the rows hold.
        self.step_theta(p, 0, obs, weight, rows);
        self.step_theta(p, 1, obs, weight, rows);
        let theta = p.theta;
        p.rates.ascend(|rates| {
            let exp_eta = rates.exp_eta();
            let mut slopes = vec![[[0.0; 2]; 2]; exp_eta.len()];
            for (o, w) in obs.iter().zip(weight) {
                let row = rates.row(o);
                for k in 0..2 {
                    if w[k] > 0.0 {
                        let mu = o.depth * exp_eta[row][k];
                        let all = 1.0 / (theta[k] + mu);
                        let ratio = w[k] * theta[k] * all;
                        slopes[row][k][0] += (o.y - mu) * ratio;
                        slopes[row][k][1] += mu * ratio * (o.y + theta[k]) * all;
                    }
                }
            }
            slopes
        });
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
