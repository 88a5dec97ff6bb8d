//! max: the guide with the most UMIs of the cell; a tie leaves the cell unassigned. No fit.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::fit::FitTable;
use crate::run::Progress;
use crate::Result;

pub struct Max;

impl Model for Max {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "max",
            family: "threshold",
            unit: "cell",
            confidence: "1",
            rule: DefaultRule::SingleStage,
            uses_batch: false,
            uses_depth: false,
            about: "the guide with the most UMIs; a tie is unassigned",
            when: "Exactly one guide in every cell; calls single UMIs too, so set min_umi.",
        }
    }

    fn by_cell(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, _: &Control, _: &Progress) -> Result<Scores> {
        let score = counts.one_of_each_cell(0.0, |cell| counts.unique_largest(cell).map(|top| (top, 1.0)));
        let fits = FitTable::unfitted("guide", &counts.cells_per_guide());
        Ok(Scores { score, fits, ..Scores::default() })
    }
}
