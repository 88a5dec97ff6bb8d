//! binomial: per guide, y ~ Binomial(D, p) with logit p = b0 + b1 z + gamma_b over all cells with guide UMIs, zeros
//! included (grouped by batch and depth).
//!
//! The family of crispat (Braunger and Velten 2024, doi:10.1093/bioinformatics/btae535), evaluated by the same logistic it is
//! fitted with. gamma_b as in `glm`. D is the cell's own total, so one UMI in a cell with one UMI is a share of 1.
//!
//! M-step: coordinate-wise, on sums of y and D per component and batch, which are sufficient.
use super::glm::Rates;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::ln_gamma;
use crate::Result;

pub struct Binomial;

impl Model for Binomial {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "binomial",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: true,
            uses_depth: true,
            about: "Binomial mixture of the guide's share of the cell's UMIs, with batch effects",
            when: "The share of a guide matters more than its count; low MOI.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(&Family { n_batches: counts.n_batches() }, counts, control, progress, true)
    }
}

struct Family {
    n_batches: usize,
}

/// ln(1 + exp(x)) without overflow.
fn ln_1p_exp(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

impl Mixture for Family {
    type Params = Rates;

    fn components(&self) -> usize {
        2
    }

    fn start(&self, _: &[Obs]) -> Rates {
        Rates::new(self.n_batches)
    }

    fn ln_const(&self, y: f64, depth: f64) -> f64 {
        ln_gamma(depth + 1.0) - ln_gamma(y + 1.0) - ln_gamma(depth - y + 1.0)
    }

    fn ln_density(&self, p: &Rates, o: &Obs) -> [f64; MOST] {
        let ln_mass = |k| {
            let eta = p.eta(k, o.batch);
            o.y * eta - o.depth * ln_1p_exp(eta)
        };
        [ln_mass(0), ln_mass(1), 0.0]
    }

    fn m_step(&self, p: &mut Rates, obs: &[Obs], weight: &[[f64; MOST]]) {
        let sums = p.sums(obs, weight);
        p.ascend(|p| {
            p.table(|k, batch| {
                let [y, depth] = sums[batch][k];
                let prob = 1.0 / (1.0 + (-p.eta(k, batch as u32)).exp());
                [y - depth * prob, depth * prob * (1.0 - prob)]
            })
        });
    }

    fn mean(&self, p: &Rates, k: usize) -> f64 {
        p.b[k]
    }

    fn reorder(&self, p: &mut Rates, _: &[usize]) -> bool {
        p.swap();
        true
    }

    fn ln_prior(&self, p: &Rates) -> f64 {
        p.ln_prior()
    }

    fn pack(&self, p: &Rates) -> Vec<f64> {
        p.pack()
    }

    fn unpack(&self, p: &mut Rates, x: &[f64]) {
        p.unpack(x);
    }

    fn n_free(&self, components: usize) -> usize {
        components
    }

    fn names(&self) -> Vec<String> {
        Rates::names(self.n_batches)
    }

    fn values(&self, p: &Rates) -> Vec<f64> {
        p.values()
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
