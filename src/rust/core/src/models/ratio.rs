//! ratio: the largest guide of the cell when its share y / D of the cell's guide UMIs exceeds `min_fraction` (default
//! 0.3); a tie leaves the cell unassigned. No fit.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::fit::FitTable;
use crate::run::Progress;
use crate::Result;

pub struct Ratio;

impl Model for Ratio {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "ratio",
            family: "threshold",
            unit: "cell",
            confidence: "y / depth",
            rule: DefaultRule::SingleStage,
            uses_batch: false,
            uses_depth: true,
            about: "the largest guide when it holds more than min_fraction (0.3) of the cell's UMIs",
            when: "One guide a cell; a cell with a single UMI has share 1, so set min_umi.",
        }
    }

    fn by_cell(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, control: &Control, _: &Progress) -> Result<Scores> {
        let score = counts.one_of_each_cell(0.0, |cell| {
            let top = counts.unique_largest(cell)?;
            let share = counts.counts()[top] / counts.depth()[cell];
            (share > control.min_fraction).then_some((top, share))
        });
        let fits = FitTable::unfitted("guide", &counts.cells_per_guide());
        Ok(Scores { score, fits, ..Scores::default() })
    }
}
