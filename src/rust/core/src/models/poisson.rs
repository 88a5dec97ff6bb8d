//! poisson: per guide, y ~ Poisson(mu) with ln mu = b0 + b1 z + gamma_b + ln D over all cells with guide UMIs, zeros
//! included (grouped by batch and depth).
//!
//! The covariate mixture of sceptre (Barry et al. 2024, doi:10.1186/s13059-024-03254-2), as in crispat. gamma_b has a
//! normal(0, 1) prior, so batches are shrunken towards each other; with one batch it is 0. D as in `glm`. The guide's own count is part
//! of it: a guide that holds nearly all UMIs of its cells has a signal rate near 1 there.
//!
//! M-step: coordinate-wise, on sums of y and D per component and batch, which are sufficient.
use super::glm::NaturalFamily;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture;
use crate::run::Progress;
use crate::special::ln_factorial;
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
        mixture::score_per_guide(&family(counts.n_batches()), counts, control, progress)
    }
}

/// In typical depths. More takes faint carriers from `overdispersed`.
const BORROWED_DEPTH: f64 = 0.12;

fn family(n_batches: usize) -> NaturalFamily {
    NaturalFamily {
        n_batches,
        borrowed_depth: BORROWED_DEPTH,
        ln_const: |y, depth| y * depth.ln() - ln_factorial(y),
        cumulant: |eta| [eta.exp(); 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::laws;

    #[test]
    fn keeps_the_laws_of_mixtures() {
        laws::all(&family(1), 1);
        laws::all(&family(2), 2);
    }
}
