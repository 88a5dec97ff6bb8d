//! Counts, scores and calls of a file in memory, and what of them goes into an .h5ad or .h5mu: what the R package writes.
use std::path::Path;

use kaichi_core::decide::{decide, set_probability, Calls, Cut, Evidence, Rule};
use kaichi_core::diagnose::{diagnose, Diagnosis};
use kaichi_core::fit::{Column, Columns, FitTable};
use kaichi_core::io::guide_table::GuideTable;
use kaichi_core::io::h5ad::scores::ScoresFile;
use kaichi_core::io::h5ad::write::{self, Block, Content, Kind, Note, Stored};
use kaichi_core::io::{h5mu, GuideFile};
use kaichi_core::models::{self, ModelInfo};
use kaichi_core::stream::{cell_columns, cell_values, worth_columns};
use kaichi_core::{Error, Result};

use crate::cli::{is_posterior, keeps_scores};

pub struct Screen {
    pub counts: GuideFile,
    pub score: Vec<f64>,
    /// Of the scores, where they are posteriors and somebody asks for them. Where they are there, they are written.
    pub log_odds: Vec<f64>,
    pub fits: Fits,
    /// What was learnt of the screen as a whole.
    pub whole: Columns,
    pub info: ModelInfo,
    /// JSON.
    pub params: String,
    pub table: LibraryTable,
}

/// The guide table in the order of the guides, without their names; empty where there is none.
#[derive(Default)]
pub struct LibraryTable {
    columns: Vec<(String, Column)>,
    /// Whether it is more than what the file of the counts says, and an output that keeps the columns of that file needs it.
    given: bool,
}

impl LibraryTable {
    pub fn new(columns: GuideTable, given: bool) -> Self {
        LibraryTable {
            columns: columns.into_iter().map(|(name, values)| (name, Column::Text(values))).collect(),
            given,
        }
    }
}

pub struct Decision {
    pub calls: Calls,
    /// Of each cell, for scores that are posteriors.
    pub set_probability: Option<Vec<f64>>,
    pub worth: Vec<Diagnosis>,
    pub rule: Rule,
}

/// A fit table with names in the place of codes.
pub struct Fits {
    /// Without the names of the guides.
    pub columns: Vec<(String, Column)>,
    /// Whether there is one row for each guide, in their order.
    pub per_guide: bool,
}

impl Fits {
    pub fn named(table: FitTable, n_guides: usize, batches: Option<&[&str]>) -> Result<Self> {
        let batch = |code: usize| match batches {
            None => Some("all"),
            Some(levels) => levels.get(code).copied(),
        };
        let mut fits = Fits { columns: vec![], per_guide: false };
        for (name, column) in table.columns {
            match (name.as_str(), column) {
                ("guide", Column::Integer(codes)) => {
                    if !codes.iter().copied().eq((0..n_guides as i32).map(Some)) {
                        return Err(Error::Internal("the fits are not in the order of the guides".into()));
                    }
                    fits.per_guide = true;
                }
                ("batch", Column::Integer(codes)) => {
                    let name_of = |code: &Option<i32>| code.and_then(|code| batch(code as usize)).map(str::to_owned);
                    fits.columns.push((name, Column::Text(codes.iter().map(name_of).collect())));
                }
                (_, column) => {
                    let level = name.strip_prefix("gamma_").and_then(|code| batch(code.parse().ok()?));
                    let named = level.map(|level| format!("gamma_{level}"));
                    fits.columns.push((named.unwrap_or(name), column));
                }
            }
        }
        Ok(fits)
    }

    fn status(&self) -> Vec<String> {
        let status = self.columns.iter().find(|(name, _)| self.per_guide && name == "status");
        match status {
            Some((_, Column::Text(values))) => values.iter().map(|value| value.clone().unwrap_or_default()).collect(),
            _ => vec![],
        }
    }

    /// With what the calls are worth, where there is a row for each guide.
    pub fn with_worth(&self, worth: &[Diagnosis]) -> Vec<(String, Column)> {
        let worth = if self.per_guide { worth_columns(worth) } else { vec![] };
        self.columns.iter().cloned().chain(worth).collect()
    }
}

fn target_in(table: &[(String, Column)]) -> Option<&[Option<String>]> {
    table.iter().find_map(|(name, column)| match column {
        Column::Text(values) if name == "target" => Some(&values[..]),
        _ => None,
    })
}

fn stored(columns: Vec<(String, Column)>) -> Vec<Stored> {
    columns.into_iter().map(|(name, column)| store(name, column)).collect()
}

/// With one NaN, whatever the processor made of 0 / 0: files must not tell who wrote them.
fn store(name: String, mut column: Column) -> Stored {
    if let Column::Real(values) = &mut column {
        values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = f64::NAN);
    }
    Stored::new(name, column)
}

/// The thresholds and `min_umi` among the notes of uns/kaichi.
pub fn rule_notes(rule: &Rule) -> Vec<(String, Note)> {
    let (name, by) = match rule.cut {
        Cut::Fdr(_) => ("fdr", Some("overall")),
        Cut::FdrPerGuide(_) => ("fdr", Some("guide")),
        cut => (cut.name(), None),
    };
    let mut notes = vec![(name.to_owned(), Note::Number(rule.cut.value()))];
    notes.extend(by.map(|by| ("fdr_by".to_owned(), Note::Text(by.to_owned()))));
    notes.push(("min_umi".to_owned(), Note::Number(rule.min_umi)));
    notes
}

/// The notes of uns/kaichi that say what was run.
pub fn run_notes(model: &str, params: &str, stage: &str) -> Vec<(String, Note)> {
    let version = env!("CARGO_PKG_VERSION");
    [("model", model), ("model_params", params), ("version", version), ("stage", stage)]
        .map(|(name, text)| (name.to_owned(), Note::Text(text.to_owned())))
        .into()
}

impl Screen {
    /// What a scores file holds.
    pub fn scored(file: ScoresFile) -> Result<Self> {
        let model = models::find(&file.model)?;
        // Of earlier calls.
        let decided: Vec<String> = worth_columns(&[]).into_iter().map(|(name, _)| name).collect();
        let columns = file.fits.into_iter().filter(|(name, _)| !(file.per_guide && decided.contains(name))).collect();
        Ok(Screen {
            counts: file.counts,
            score: file.score,
            log_odds: file.log_odds,
            fits: Fits { columns, per_guide: file.per_guide },
            whole: file.screen,
            info: model.info(),
            params: file.params.unwrap_or_else(|| "{}".to_owned()),
            table: LibraryTable { columns: file.table, given: file.wrote_table },
        })
    }

    /// The target of each guide, where the guide table has them.
    pub fn target(&self) -> Option<&[Option<String>]> {
        target_in(&self.table.columns)
    }

    /// The columns of the guide table that go into an .h5ad, which may keep those of the file of the counts.
    fn written_table(&self, keeps: bool) -> &[(String, Column)] {
        match keeps && !self.table.given {
            true => &[],
            false => &self.table.columns,
        }
    }

    /// var, and the fits where they are not per guide. A fit has the last word on a name.
    fn guide_columns(
        &self,
        table: &[(String, Column)],
        fits: Vec<(String, Column)>,
    ) -> (Vec<Stored>, Option<Vec<Stored>>) {
        let (of_guides, fits) = if self.fits.per_guide { (fits, None) } else { (vec![], Some(stored(fits))) };
        let mut var: Vec<(String, Column)> =
            table.iter().filter(|(name, _)| !of_guides.iter().any(|(fit, _)| fit == name)).cloned().collect();
        var.extend(of_guides);
        (stored(var), fits)
    }

    pub fn decide(&self, rule: Rule) -> Result<Decision> {
        let counts = self.counts.guide_counts()?;
        let calls = decide(&counts, Evidence { score: &self.score, log_odds: &self.log_odds }, &rule)?;
        let posterior = is_posterior(&self.info);
        Ok(Decision {
            set_probability: posterior.then(|| set_probability(&counts, &self.score, &calls)),
            worth: diagnose(&counts, &self.score, &calls, posterior, &self.fits.status()),
            calls,
            rule,
        })
    }

    /// Writes an .h5ad, whose obs and var keep the columns of the .h5ad `template`.
    pub fn write_scores(&self, path: &Path, overwrite: bool, template: Option<&Path>) -> Result<()> {
        let notes = run_notes(self.info.name, &self.params, "scored");
        let (var, fits) = self.guide_columns(self.written_table(template.is_some()), self.fits.columns.clone());
        let content = self.content((&[], &[]), vec![], var, &notes, fits);
        write::write(path, overwrite, template, content)
    }

    /// Writes an .h5ad, or an .h5mu, to which `other` gives the other modalities.
    pub fn write_calls(
        &self,
        decision: &Decision,
        path: &Path,
        as_h5mu: bool,
        overwrite: bool,
        other: Option<&Path>,
    ) -> Result<()> {
        let mut notes = run_notes(self.info.name, &self.params, "assigned");
        notes.extend(rule_notes(&decision.rule));
        let starts: Vec<i32> = decision.calls.indptr.iter().map(|&at| at as i32).collect();
        let called: Vec<i32> = decision.calls.pairs.iter().map(|&at| self.counts.guides[at]).collect();
        let counts = self.counts.guide_counts()?;
        let posterior = decision.set_probability.is_some();
        let values = cell_values(&counts, &self.score, &decision.calls, posterior);
        let table = self.written_table(!as_h5mu && other.is_some());
        let mut obs: Vec<Stored> = cell_columns(&self.counts.guide_names, posterior)
            .into_iter()
            .zip(values)
            .map(|((name, kind), values)| match kind {
                Kind::Category(_) => Stored { name, kind, values },
                _ => store(name, values),
            })
            .collect();
        let samples = &self.counts.samples;
        let known = samples.columns.iter();
        obs.extend(known.map(|(name, values)| Stored::new(name.clone(), Column::Text(samples.of_cells(values)))));
        if let Some(target) = target_in(table) {
            let of_cell = |at: &Option<usize>| at.and_then(|at| target[self.counts.guides[at] as usize].clone());
            let of_cells = decision.calls.best.iter().map(of_cell).collect();
            obs.push(Stored::new("target".to_owned(), Column::Text(of_cells)));
        }
        let (var, fits) = self.guide_columns(table, self.fits.with_worth(&decision.worth));
        let content = self.content((&starts, &called), obs, var, &notes, fits);
        let write = if as_h5mu { h5mu::write } else { write::write };
        write(path, overwrite, other, content)
    }

    fn content<'a>(
        &'a self,
        (called_starts, called): (&'a [i32], &'a [i32]),
        obs: Vec<Stored>,
        var: Vec<Stored>,
        notes: &'a [(String, Note)],
        fits: Option<Vec<Stored>>,
    ) -> Content<'a> {
        Content {
            cells: &self.counts.cell_names,
            guides: &self.counts.guide_names,
            matrices: Block {
                starts: &self.counts.indptr,
                guides: &self.counts.guides,
                counts: &self.counts.counts,
                scores: if keeps_scores(&self.info) { &self.score } else { &[] },
                log_odds: &self.log_odds,
                called_starts,
                called,
            },
            obs,
            var,
            notes,
            fits,
            screen: (!self.whole.is_empty()).then(|| stored(self.whole.clone())),
        }
    }
}
