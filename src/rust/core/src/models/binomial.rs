//! binomial: per guide, y ~ Binomial(D, p) with logit p = b0 + b1 z + gamma_b over all cells with guide UMIs, zeros
//! included (grouped by batch and depth).
//!
//! The family of crispat (Braunger and Velten 2024, doi:10.1093/bioinformatics/btae535), evaluated by the same logistic it is
//! fitted with. gamma_b and D as in `glm`: more than the cell's own total, so that one UMI in a
//! cell with one UMI is no share of 1.
//!
//! M-step: coordinate-wise, on sums of y and D per component and batch, which are sufficient.
use super::glm::NaturalFamily;
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::mixture;
use crate::run::Progress;
use crate::special::ln_factorial;
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
        mixture::score_per_guide(&family(counts.n_batches()), counts, control, progress)
    }
}

/// In typical depths. More takes faint carriers from `overdispersed`.
const BORROWED_DEPTH: f64 = 0.1;

fn family(n_batches: usize) -> NaturalFamily {
    NaturalFamily {
        n_batches,
        borrowed_depth: BORROWED_DEPTH,
        ln_const: |y, depth| ln_factorial(depth) - ln_factorial(y) - ln_factorial(depth - y),
        cumulant: |eta| {
            let p = 1.0 / (1.0 + (-eta).exp());
            [ln_1p_exp(eta), p, p * (1.0 - p)]
        },
    }
}

/// ln(1 + exp(x)) without overflow.
fn ln_1p_exp(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
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
