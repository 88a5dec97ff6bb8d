//! Calls from an .h5ad to an .h5ad, a block of cells at a time.
//!
//! The counts are read twice: once to count how often each guide has each number of UMIs, from which the models without depth
//! are fitted, and once for scores, calls and output. The results are those of the whole matrix in memory, bit for bit. Models
//! and rules that look at the whole matrix get it, and only the output is in blocks.
use std::ops::Range;
use std::path::Path;

use crate::counts::GuideCounts;
use crate::decide::{at_most_false, decide, false_share, set_probability, Calls, Cut, Evidence, Rule};
use crate::diagnose::{Diagnosis, Sums};
use crate::fit::{Column, Columns, FitTable};
use crate::histogram::{Histogram, PosteriorsOfRows, RowScores, Rows};
use crate::io::h5ad::frame::{Frame, Names};
use crate::io::h5ad::matrix::{Blocks, Matrix};
use crate::io::h5ad::quiet::quietly;
use crate::io::h5ad::values::Source;
use crate::io::h5ad::write::{self, Block, Draft, Index, Kind, Matrices, Note, Shape, Stored, Table};
use crate::io::h5ad::{check_signature, matrix_name, open, unchanged};
use crate::models::{Control, DefaultRule, Model};
use crate::run::Progress;
use crate::Result;

/// Cells whose names are in memory at once.
const CELLS: usize = 1 << 16;

/// What is to be done.
pub struct Job<'a> {
    pub input: &'a Path,
    pub layer: Option<&'a str>,
    pub output: &'a Path,
    pub overwrite: bool,
    pub model: &'a dyn Model,
    pub control: &'a Control,
    pub rule: Rule,
    /// Of uns/kaichi.
    pub notes: &'a [(String, Note)],
}

/// What is known in the end, beside the output.
pub struct Streamed {
    pub n_cells: usize,
    pub guides: Vec<String>,
    pub fits: FitTable,
    /// See [`crate::models::Scores::screen`].
    pub screen: Columns,
    pub worth: Vec<Diagnosis>,
}

/// Whether a model can score a block of cells without the others, once its histograms are known; and a rule decide it.
fn by_blocks(model: &dyn Model, cut: Cut) -> bool {
    match cut {
        Cut::MinConfidence(_) => model.by_histogram().is_some() || model.by_cell(),
        Cut::Fdr(_) | Cut::MinLogOdds(_) => model.by_histogram().is_some(),
        _ => false,
    }
}

pub fn assign(job: &Job, progress: &Progress) -> Result<Streamed> {
    job.rule.check()?;
    let source = Source(job.input);
    check_signature(source)?;
    let draft = Draft::new(job.output, Some(job.input), job.overwrite)?;
    let streamed = unchanged(source, || quietly(|| stream(source, job, &draft, progress)))?;
    progress.check()?;
    draft.finish()?;
    Ok(streamed)
}

fn stream(source: Source, job: &Job, draft: &Draft, progress: &Progress) -> Result<Streamed> {
    let file = open(source)?;
    let what = matrix_name(source, &file, job.layer)?;
    if what == "raw/X" {
        return Err(source.format("keeps other features in raw than in X, so that it is read into memory only."));
    }
    let obs = Frame::open(source, &file, "obs", "cell")?;
    let var = Frame::open(source, &file, "var", "guide")?;
    let mut names = Names::open(&obs)?;
    let n_cells = names.len()?;
    let guides = var.index()?;
    let matrix = Matrix { source, file: &file, what: &what, cells: &[], guides: &guides };
    let in_blocks = by_blocks(job.model, job.rule.cut);
    let blocks = match in_blocks {
        true => Blocks::open(matrix, n_cells, || names.read(0..n_cells))?,
        false => Blocks::Whole(Matrix { cells: &names.read(0..n_cells)?, ..matrix }.read()?),
    };

    let by_histogram = job.model.by_histogram().filter(|_| in_blocks);
    let mut histograms = vec![Histogram::default(); if by_histogram.is_some() { guides.len() } else { 0 }];
    let mut n_counts = 0;
    for first in (0..n_cells).step_by(CELLS) {
        let end = (first + CELLS).min(n_cells);
        let cells = names.next(first..end)?;
        let mut at = first;
        while at < end {
            progress.check()?;
            let (range, rows) = blocks.next(&Matrix { cells: &cells[at - first..], ..matrix }, at..end)?;
            if by_histogram.is_some() {
                rows.guides.iter().zip(&rows.counts).for_each(|(&guide, &y)| histograms[guide as usize].add(y as u32));
            }
            n_counts += rows.counts.len();
            at = range.end;
        }
    }
    names.check_unique()?;

    let mut local = job.rule;
    let control = &Control { log_odds: job.rule.cut.uses_log_odds(), ..job.control.clone() };
    let rows: Vec<Rows> = histograms.into_iter().map(Histogram::rows).collect();
    let of_rows;
    let (scored, fits, screen) = match (&blocks, by_histogram) {
        (_, Some(score)) => {
            let (posteriors, fits) = score(&rows, n_cells, control, progress)?;
            of_rows = posteriors;
            if let Cut::Fdr(fdr) = job.rule.cut {
                local = at_fdr(&rows, &of_rows, fdr, job.rule.min_umi);
            }
            let log_odds = control.log_odds.then(|| of_rows.log_odds(&rows));
            (Scored::Rows(of_rows.scores(&rows), log_odds), Some(fits), vec![])
        }
        (Blocks::Whole(rows), None) if !in_blocks => {
            let counts = GuideCounts::new(guides.len(), &rows.indptr, &rows.guides, &rows.counts, None)?;
            let scores = job.model.score(&counts, control, progress)?;
            let calls = decide(&counts, &scores, &job.rule)?;
            (Scored::All(scores.score, calls), Some(scores.fits), scores.screen)
        }
        _ => (Scored::Cells, None, vec![]),
    };

    let info = job.model.info();
    let single_stage = matches!(info.rule, DefaultRule::SingleStage);
    let posterior = info.confidence == "posterior" && !single_stage;
    let out = draft.open(0)?;
    // Names and other columns are a part of the input; the counts, at most as many calls, and the columns of obs are ours.
    let per_count = if single_stage { 13 } else { 25 };
    let ours = n_counts * per_count + n_cells * 80 + guides.len() * 1024;
    draft.reserve(&out, ours as u64 + write::file_size(job.input))?;
    let failed = |error| draft.failed(error);
    let index = match names.whole() {
        Some(names) => Index::Names(obs.index_name(), names),
        None => Index::Copy(&obs),
    };
    let columns = cell_columns(&guides, posterior);
    let table = Table::create(&out, "obs", index, n_cells, Some(&obs), &columns).map_err(failed)?;
    write::link_identity(&out).map_err(failed)?;
    let shape = Shape {
        cells: n_cells,
        guides: guides.len(),
        counts: n_counts,
        calls: true,
        called: None,
        scores: !single_stage,
        log_odds: false,
    };
    let mut matrices = Matrices::create(&out, shape).map_err(failed)?;
    let mut sums = Sums::new(guides.len());
    let mut at = 0;
    let mut seen = 0;
    while at < n_cells {
        progress.check()?;
        let (range, rows) = blocks.next(&matrix, at..(at + CELLS).min(n_cells))?;
        seen += rows.counts.len();
        if seen > n_counts {
            return Err(source.file("has changed while it was read. Run again."));
        }
        let counts = GuideCounts::new(guides.len(), &rows.indptr, &rows.guides, &rows.counts, None)?;
        let (scores, calls) = match &scored {
            Scored::All(scores, calls) => {
                let first = seen - rows.counts.len();
                (scores[first..seen].to_vec(), part(calls, range.clone(), first))
            }
            Scored::Rows(of_rows, log_odds) => {
                let scores = of_rows.of(&rows.guides, &rows.counts);
                let log_odds = log_odds.as_ref().map_or(vec![], |of_rows| of_rows.of(&rows.guides, &rows.counts));
                let calls = decide(&counts, Evidence { score: &scores, log_odds: &log_odds }, &local)?;
                (scores, calls)
            }
            Scored::Cells => {
                let scores = job.model.score(&counts, control, progress)?.score;
                let calls = decide(&counts, &scores, &local)?;
                (scores, calls)
            }
        };
        sums.add(&counts, &scores, &calls);
        let called: Vec<i32> = calls.pairs.iter().map(|&at| rows.guides[at]).collect();
        let called_starts: Vec<i32> = calls.indptr.iter().map(|&at| at as i32).collect();
        let block = Block {
            starts: &rows.indptr,
            guides: &rows.guides,
            counts: &rows.counts,
            scores: &scores,
            log_odds: &[],
            called_starts: &called_starts,
            called: &called,
        };
        matrices.add(&block).map_err(failed)?;
        table.write(range.start, &cell_values(&counts, &scores, &calls, posterior)).map_err(failed)?;
        at = range.end;
    }
    if seen != n_counts {
        return Err(source.file("has changed while it was read. Run again."));
    }

    let fits = fits.unwrap_or_else(|| FitTable::unfitted("guide", &sums.cells_per_guide()));
    let per_guide = fits.columns.iter().any(|(name, _)| name == "guide");
    let worth = sums.finish(posterior, &if per_guide { fits.texts("status") } else { vec![] });
    let columns = |fits: &FitTable| -> Vec<Stored> {
        let named = |(name, column): &(String, Column)| match name.as_str() {
            "guide" => None,
            // There is one.
            "batch" => Some(Stored::new(name.clone(), Column::Text(vec![Some("all".into()); column.len()]))),
            _ => Some(Stored::new(name.clone(), column.clone())),
        };
        fits.columns.iter().filter_map(named).collect()
    };
    let (in_var, in_uns) = match per_guide {
        true => {
            let worth = worth_columns(&worth).into_iter().map(|(name, column)| Stored::new(name, column));
            (columns(&fits).into_iter().chain(worth).collect(), None)
        }
        false => (vec![], Some(columns(&fits))),
    };
    let index = Index::Names(var.index_name(), &guides);
    write::whole_table(&out, "var", index, guides.len(), Some(&var), in_var).map_err(failed)?;
    write::write_uns(&out, job.notes, in_uns, stored_screen(&screen)).map_err(failed)?;
    drop((matrices, table));
    draft.close(out)?;
    Ok(Streamed { n_cells, guides, fits, screen, worth })
}

/// Where the scores of a block come from.
enum Scored<'a> {
    /// From those of the rows of the histograms, which may have log odds.
    Rows(RowScores<'a>, Option<RowScores<'a>>),
    /// The model scores the block.
    Cells,
    /// All are known, and so are the calls.
    All(Vec<f64>, Calls),
}

/// The calls of a range of cells, whose counts begin at `first`.
fn part(calls: &Calls, cells: Range<usize>, first: usize) -> Calls {
    let starts = &calls.indptr[cells.start..=cells.end];
    let (from, to) = (starts[0], starts[starts.len() - 1]);
    Calls {
        pairs: calls.pairs[from..to].iter().map(|at| at - first).collect(),
        indptr: starts.iter().map(|start| start - from).collect(),
        best: calls.best[cells].iter().map(|at| at.map(|at| at - first)).collect(),
    }
}

/// A false discovery rate over all cells as the cut it comes to: the sums of `decide`, over the same groups of equal log odds.
fn at_fdr(histograms: &[Rows], posteriors: &PosteriorsOfRows, fdr: f64, min_umi: f64) -> Rule {
    let of_guides = histograms.iter().zip(&posteriors.score).zip(&posteriors.log_odds);
    let mut groups: Vec<(f64, usize)> = of_guides
        .filter_map(|((rows, score), log_odds)| Some(rows.iter().zip(score.as_ref()?).zip(log_odds.as_ref()?)))
        .flatten()
        .filter(|((&(y, _), &score), _)| score > 0.0 && f64::from(y) >= min_umi)
        .map(|((&(_, n), _), &log_odds)| (log_odds, n as usize))
        .collect();
    groups.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let ties: Vec<(f64, usize)> =
        groups.chunk_by(|a, b| a.0 == b.0).map(|ties| (ties[0].0, ties.iter().map(|tie| tie.1).sum())).collect();
    let called = at_most_false(fdr, ties.iter().map(|&(log_odds, n)| (n, false_share(log_odds, true))));
    let mut n = 0;
    let last = ties.iter().take_while(|tie| {
        n += tie.1;
        n <= called
    });
    match last.last() {
        Some(&(log_odds, _)) => Rule { cut: Cut::MinLogOdds(log_odds), min_umi },
        None => Rule { cut: Cut::MinLogOdds(0.0), min_umi: f64::INFINITY },
    }
}

/// The columns of obs, those of the cells of a guide_calls in R.
pub fn cell_columns(guides: &[String], posterior: bool) -> Vec<(String, Kind)> {
    let mut columns = vec![
        ("guide_id", Kind::Category(guides.to_vec())),
        ("umi_count", Kind::Integer { missing: true }),
        ("assignment_confidence", Kind::Real),
        ("is_unassigned", Kind::Logical { missing: false }),
        ("is_multi_infected", Kind::Logical { missing: false }),
        ("n_guides_detected", Kind::Integer { missing: false }),
    ];
    if posterior {
        columns.push(("set_probability", Kind::Real));
    }
    columns.into_iter().map(|(name, kind)| (name.to_string(), kind)).collect()
}

pub fn cell_values(counts: &GuideCounts, scores: &[f64], calls: &Calls, posterior: bool) -> Vec<Column> {
    let best = || calls.best.iter();
    let n_called: Vec<i32> = calls.indptr.windows(2).map(|pair| (pair[1] - pair[0]) as i32).collect();
    let mut columns = vec![
        Column::Integer(best().map(|at| at.map(|at| counts.guides()[at])).collect()),
        Column::Integer(best().map(|at| at.map(|at| counts.counts()[at] as i32)).collect()),
        Column::Real(best().map(|at| at.map_or(f64::NAN, |at| scores[at])).collect()),
        Column::Logical(best().map(|at| Some(at.is_none())).collect()),
        Column::Logical(n_called.iter().map(|&n| Some(n > 1)).collect()),
        Column::Integer(n_called.into_iter().map(Some).collect()),
    ];
    if posterior {
        columns.push(Column::Real(set_probability(counts, scores, calls)));
    }
    columns
}

/// What was learnt of the whole screen, as one row; None where that is nothing.
pub fn stored_screen(screen: &Columns) -> Option<Vec<Stored>> {
    let stored = |(name, column): &(String, Column)| Stored::new(name.clone(), column.clone());
    (!screen.is_empty()).then(|| screen.iter().map(stored).collect())
}

/// What the calls of the guides are worth, as columns.
pub fn worth_columns(worth: &[Diagnosis]) -> Vec<(String, Column)> {
    let real = |f: fn(&Diagnosis) -> f64| Column::Real(worth.iter().map(f).collect());
    let columns = [
        ("n_cells_called", Column::Integer(worth.iter().map(|guide| Some(guide.n_cells_called as i32)).collect())),
        ("min_umi_called", Column::Integer(worth.iter().map(|guide| guide.min_umi_called.map(|n| n as i32)).collect())),
        ("expected_cells", real(|guide| guide.expected_cells)),
        ("expected_precision", real(|guide| guide.expected_precision)),
        ("expected_recall", real(|guide| guide.expected_recall)),
        ("separation", real(|guide| guide.separation)),
        ("warning", Column::Text(worth.iter().map(|guide| Some(guide.warning.clone())).collect())),
    ];
    columns.map(|(name, column)| (name.to_string(), column)).into()
}
