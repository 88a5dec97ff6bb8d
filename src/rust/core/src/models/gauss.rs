//! gauss: per guide, over all cells, zeros included: log10(y + 1) is a mixture of two normals that share their variance, seen
//! through counts:
//!
//!   P(y) = Phi((log10(y + 3/2) - mean) / sd) - Phi((log10(y + 1/2) - mean) / sd),  the lower bound -inf at y = 0
//!
//! Cell Ranger's caller in its shape, and crispat's gauss. The masses matter: with densities, a guide in few cells is fitted
//! best by one sharp normal on the zeros and one on everything else, and every single UMI is called. The shared variance
//! makes the posterior rise with the count.
//!
//! M-step: one EM step for interval-censored normal data (moments of the truncated normal), which raises the likelihood.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::{ln_normal_mass, truncated_normal_moments};
use crate::Result;

/// Smallest sd in log10 units: below it the rounding hides the spread of any count that is seen.
const LEAST_SD: f64 = 1e-3;

/// Least mean in log10 units: with no background UMI at all the likelihood would send it to -inf.
const LEAST_MEAN: f64 = -1.0;

pub struct Gauss;

impl Model for Gauss {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "gauss",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: false,
            uses_depth: false,
            about: "two normals with one variance on log10(y + 1)",
            when: "To compare with Cell Ranger, whose family it is.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(self, counts, control, progress, false)
    }
}

#[derive(Debug, Clone)]
pub struct Params {
    mean: [f64; 2],
    sd: f64,
}

/// The interval of log10(UMIs + 1) that rounds to y, in standard units.
fn bounds(y: f64, mean: f64, sd: f64) -> (f64, f64) {
    let low = if y > 0.0 { ((y + 0.5).log10() - mean) / sd } else { f64::NEG_INFINITY };
    (low, ((y + 1.5).log10() - mean) / sd)
}

impl Mixture for Gauss {
    type Params = Params;

    fn components(&self) -> usize {
        2
    }

    fn start(&self, _: &[Obs]) -> Params {
        Params { mean: [0.0, 1.0], sd: 1.0 }
    }

    fn ln_const(&self, _: f64, _: f64) -> f64 {
        0.0
    }

    fn ln_density(&self, p: &Params, o: &Obs) -> [f64; MOST] {
        let ln_mass = |k: usize| {
            let (a, b) = bounds(o.y, p.mean[k], p.sd);
            ln_normal_mass(a, b)
        };
        [ln_mass(0), ln_mass(1), 0.0]
    }

    fn m_step(&self, p: &mut Params, obs: &[Obs], weight: &[[f64; MOST]]) {
        let (mut n, mut sum, mut square) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        for (o, w) in obs.iter().zip(weight) {
            for k in 0..2 {
                if w[k] > 0.0 {
                    let (a, b) = bounds(o.y, p.mean[k], p.sd);
                    let (first, second) = truncated_normal_moments(a, b);
                    n[k] += w[k];
                    sum[k] += w[k] * first;
                    square[k] += w[k] * second;
                }
            }
        }
        // Around the new means, in units of the old sd.
        let mut spread = 0.0;
        for k in 0..2 {
            if n[k] > 0.0 {
                spread += square[k] - sum[k] * sum[k] / n[k];
                p.mean[k] = (p.mean[k] + p.sd * sum[k] / n[k]).max(LEAST_MEAN);
            }
        }
        p.sd = (p.sd * (spread.max(0.0) / (n[0] + n[1])).sqrt()).max(LEAST_SD);
    }

    fn mean(&self, p: &Params, k: usize) -> f64 {
        p.mean[k]
    }

    fn reorder(&self, p: &mut Params, _: &[usize]) -> bool {
        p.mean.swap(0, 1);
        true
    }

    fn pack(&self, p: &Params) -> Vec<f64> {
        vec![p.mean[0], p.mean[1], p.sd.ln()]
    }

    fn unpack(&self, p: &mut Params, x: &[f64]) {
        *p = Params { mean: [x[0].max(LEAST_MEAN), x[1].max(LEAST_MEAN)], sd: x[2].exp().max(LEAST_SD) };
    }

    fn n_free(&self, components: usize) -> usize {
        components + 1
    }

    fn names(&self) -> Vec<String> {
        ["mean_background", "mean_signal", "sd"].map(String::from).to_vec()
    }

    fn values(&self, p: &Params) -> Vec<f64> {
        vec![p.mean[0], p.mean[1], p.sd]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&Gauss, 1);
    }
}
