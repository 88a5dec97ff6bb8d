//! The registry: every model is one file in `models/` and one line in [`MODELS`]. The model table of the man page, the
//! help of the command line and the laws in `tests/every_model.rs` all derive from it.
use crate::counts::GuideCounts;
use crate::fit::{Columns, FitTable};
use crate::histogram::{PosteriorsOfRows, Rows};
use crate::run::Progress;
use crate::{Error, Result};

mod ambient;
mod beta;
mod binomial;
mod gauss;
mod glm;
mod max;
mod neg_binomial;
mod poisson;
mod poisson_gauss;
mod quantiles;
mod ratio;
mod umi;

/// All models, in the order users see.
pub static MODELS: &[&dyn Model] = &[
    &umi::Umi,
    &max::Max,
    &ratio::Ratio,
    &quantiles::Quantiles,
    &poisson_gauss::PoissonGauss,
    &poisson::Poisson,
    &neg_binomial::NegBinomial,
    &binomial::Binomial,
    &gauss::Gauss,
    &beta::BETA2,
    &beta::BETA3,
    &ambient::Ambient,
];

/// What is known of a model before it sees data.
#[derive(Debug, Clone, Copy)]
pub struct ModelInfo {
    pub name: &'static str,
    /// threshold, rank or mixture.
    pub family: &'static str,
    /// What one fit is made for: cell, guide or batch.
    pub unit: &'static str,
    /// What the confidence of a call is.
    pub confidence: &'static str,
    /// How scores become calls when the user says nothing.
    pub rule: DefaultRule,
    pub uses_batch: bool,
    pub uses_depth: bool,
    /// One line on the model.
    pub about: &'static str,
    /// One line on when to use it.
    pub when: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DefaultRule {
    /// The model decides by itself: every positive score is a call, and there is nothing to decide later.
    SingleStage,
    /// Calls have a score of at least this.
    MinConfidence(f64),
    /// Calls are this share of the cells with the guide, the best scores first.
    TopShare(f64),
}

/// What the user can set for all models.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// `umi`: least UMIs of a call.
    pub umi_threshold: f64,
    /// `ratio`: share of the cell's UMIs that the largest guide must exceed.
    pub min_fraction: f64,
    /// Mixtures: how many starts are tried.
    pub starts: usize,
    /// Mixtures: most EM iterations of a fit.
    pub iterations: usize,
    /// Mixtures: a fit has converged when an iteration gains less log-likelihood than this.
    pub tolerance: f64,
    /// Gate: least cells with the guide.
    pub gate_cells: usize,
    /// Gate: least largest count of the guide.
    pub gate_count: u32,
    /// Whether [`Scores::log_odds`] are needed. Not the user's to set: it follows from the rule that decides, and from
    /// whether the scores are kept.
    pub log_odds: bool,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            umi_threshold: 5.0,
            min_fraction: 0.3,
            starts: 8,
            iterations: 500,
            tolerance: 1e-6,
            gate_cells: 2,
            gate_count: 2,
            log_odds: false,
        }
    }
}

/// The log odds of a posterior that is 0 or 1 even on this scale, as where a density underflows or a guide has no fit. Log
/// odds are kept within these bounds, so that they are always finite; exp(-745) is 0 already.
pub const MOST_LOG_ODDS: f64 = 1e4;

/// Log odds within their bounds. NaN is what two densities of 0 give, where the posterior is decided otherwise.
pub fn bounded_log_odds(log_odds: f64, posterior: f64) -> f64 {
    match log_odds.is_nan() {
        true => bounded_log_odds(posterior.ln() - (-posterior).ln_1p(), posterior),
        false => log_odds.clamp(-MOST_LOG_ODDS, MOST_LOG_ODDS),
    }
}

/// 1 / (1 + exp(-x)), with all digits where it is small.
pub fn plogis(x: f64) -> f64 {
    match x < 0.0 {
        true => x.exp() / (1.0 + x.exp()),
        false => 1.0 / (1.0 + (-x).exp()),
    }
}

/// What a model says of the data, and how it got there. Vectors have one value for each stored count, in cell-major order.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    pub score: Vec<f64>,
    /// For posteriors ln(p / (1 - p)) of each score p, finite even where p rounds to 0 or 1; see [`MOST_LOG_ODDS`]. Empty for
    /// models without posteriors, and may be empty where [`Control::log_odds`] does not ask for them.
    pub log_odds: Vec<f64>,
    pub fits: FitTable,
    /// What was fitted to the cells, one value for each; empty for models without effects of cells.
    pub cells: Columns,
    /// What was learnt of the screen as a whole, one value in each column; empty for models that learn nothing of it.
    /// Columns of any names, such as the bounds or the prior of a parameter, are carried to the user as they are.
    pub screen: Columns,
}

pub trait Model: Sync {
    fn info(&self) -> ModelInfo;
    /// Whether the model looks at [`GuideCounts::ln_covariate`].
    fn uses_covariate(&self) -> bool {
        false
    }
    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores>;
    /// Whether the score of a count depends on the counts of its cell alone.
    fn by_cell(&self) -> bool {
        false
    }
    /// For a model to which a guide is the histogram of its counts: what scores those, with the same result.
    fn by_histogram(&self) -> Option<ByHistogram> {
        None
    }
}

/// See [`crate::mixture::score_histograms`].
pub type ByHistogram = fn(&[Rows], usize, &Control, &Progress) -> Result<(PosteriorsOfRows, FitTable)>;

/// The model of that name, or an error with the nearest one.
pub fn find(name: &str) -> Result<&'static dyn Model> {
    if let Some(model) = MODELS.iter().find(|model| model.info().name == name) {
        return Ok(*model);
    }
    let names: Vec<&str> = MODELS.iter().map(|model| model.info().name).collect();
    let wanted = name.to_lowercase().replace(['-', ' ', '.'], "_");
    let nearest = names.iter().min_by_key(|known| edit_distance(&wanted, known));
    let hint = nearest
        .filter(|known| edit_distance(&wanted, known) <= 1 + known.len() / 3)
        .map_or(String::new(), |known| format!(" Did you mean \"{known}\"?"));
    Err(Error::Model(format!("There is no model \"{name}\".{hint}\n  The models are {}.", names.join(", "))))
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_odds_are_finite_and_keep_the_digits_of_small_probabilities() {
        assert_eq!(bounded_log_odds(f64::NEG_INFINITY, 0.0), -MOST_LOG_ODDS);
        assert_eq!(bounded_log_odds(f64::NAN, 1.0), MOST_LOG_ODDS);
        assert_eq!(bounded_log_odds(f64::NAN, 0.5), 0.0);
        assert_eq!(bounded_log_odds(250.0, 1.0), 250.0);
        for x in [-700.0, -40.0, -1.0, 0.0, 1.0, 40.0, 700.0] {
            let p = plogis(x);
            assert!((p + plogis(-x) - 1.0).abs() < 1e-15);
            assert!(x > 0.0 || (p.ln() - (-p).ln_1p() - x).abs() < 1e-12 * (1.0 - x), "{x}");
        }
        assert_eq!((plogis(-MOST_LOG_ODDS), plogis(MOST_LOG_ODDS)), (0.0, 1.0));
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        let text = |name| find(name).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text("poison").contains("\"poisson\""));
        assert!(text("Negative-Binomial").contains("There is no model"));
        assert!(text("neg-binomial").contains("\"neg_binomial\""));
        assert!(!text("xyzzyx").contains("Did you mean"));
        assert!(find("umi").is_ok());
    }
}
