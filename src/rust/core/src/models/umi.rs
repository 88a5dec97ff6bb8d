//! umi: every guide with at least `umi_threshold` UMIs (default 5) in a cell is called. No fit.
use super::{Control, DefaultRule, Model, ModelInfo, Scores};
use crate::counts::GuideCounts;
use crate::fit::FitTable;
use crate::run::Progress;
use crate::Result;
use rayon::prelude::*;

pub struct Umi;

impl Model for Umi {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "umi",
            family: "threshold",
            unit: "cell",
            confidence: "1",
            rule: DefaultRule::SingleStage,
            uses_batch: false,
            uses_depth: false,
            about: "at least umi_threshold (5) UMIs",
            when: "A fast baseline; near the top on deep, clean data.",
        }
    }

    fn by_cell(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, control: &Control, _: &Progress) -> Result<Scores> {
        let score = counts.counts().par_iter().map(|&y| f64::from(u8::from(y >= control.umi_threshold))).collect();
        let fits = FitTable::unfitted("guide", &counts.cells_per_guide());
        Ok(Scores { score, fits, ..Scores::default() })
    }
}
