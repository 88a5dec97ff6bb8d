//! poisson: per guide, y ~ Poisson(mu) with ln mu = b0 + b1 z + gamma_b + ln D over all cells with guide UMIs, zeros
//! included (grouped by batch and depth).
//!
//! The covariate mixture of sceptre (Barry et al. 2024, doi:10.1186/s13059-024-03254-2), as in crispat. gamma_b has a
//! normal(0, 1) prior, so batches are shrunken towards each other; with one batch it is 0. The guide's own count is part
//! of D: a guide that holds nearly all UMIs of its cells has a signal rate near 1 there.
//!
//! M-step: coordinate-wise, on sums of y and D per component and batch, which are sufficient.
use super::glm::Rates;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture::{self, Mixture, Obs, MOST};
use crate::run::Progress;
use crate::special::ln_gamma;
use crate::Result;

pub struct Poisson;

impl Model for Poisson {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "poisson",
            family: "mixture",
            unit: "guide",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.8),
            uses_batch: true,
            uses_depth: true,
            about: "Poisson mixture with depth and batch effects",
            when: "Depth differs much between cells or batches, counts are not overdispersed.",
        }
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        mixture::score_per_guide(&Family { n_batches: counts.n_batches() }, counts, control, progress, true)
    }
}

struct Family {
    n_batches: usize,
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
        y * depth.ln() - ln_gamma(y + 1.0)
    }

    fn ln_density(&self, p: &Rates, o: &Obs) -> [f64; MOST] {
        let ln_mass = |k| {
            let eta = p.eta(k, o.batch);
            o.y * eta - o.depth * eta.exp()
        };
        [ln_mass(0), ln_mass(1), 0.0]
    }

    fn m_step(&self, p: &mut Rates, obs: &[Obs], weight: &[[f64; MOST]]) {
        let sums = p.sums(obs, weight);
        p.ascend(|p| {
            p.table(|k, batch| {
                let mu = sums[batch][k][1] * p.eta(k, batch as u32).exp();
                [sums[batch][k][0] - mu, mu]
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
