//! quantiles: of the n cells with the guide, the floor(q n) with the largest share y / D of the cell's guide UMIs are
//! called (q = 0.05). The score is the share; the rank is taken when calls are decided.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::fit::FitTable;
use crate::run::Progress;
use crate::Result;

pub struct Quantiles;

impl Model for Quantiles {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "quantiles",
            family: "rank",
            unit: "guide",
            confidence: "y / depth",
            rule: DefaultRule::TopShare(0.05),
            uses_batch: false,
            uses_depth: true,
            about: "per guide, the top quantile (0.05) of the cells that have it, by share of the cell's UMIs",
            when: "A fixed share of cells per guide is wanted; the share is a choice, not a finding.",
        }
    }

    fn by_cell(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, _: &Control, _: &Progress) -> Result<Scores> {
        let mut score = vec![0.0; counts.n_counts()];
        for cell in 0..counts.n_cells() {
            for at in counts.cell(cell) {
                score[at] = counts.counts()[at] / counts.depth()[cell];
            }
        }
        let fits = FitTable::unfitted("guide", &counts.cells_per_guide());
        Ok(Scores { score, fits, ..Scores::default() })
    }
}
