//! The only Rust that sees R: conversion between R vectors and core types, nothing else.
//!
//! No `Err` and no panic may reach extendr: its `throw_r_error` hands the text to `Rf_error` as a format string, so a
//! `%` in it crashes R. Every function returns through [`guard`], which turns both into an R condition object that
//! R/rust.R raises.
#![deny(clippy::unwrap_used, clippy::expect_used)]

mod simulate;
mod vectors;
mod write;

use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Once};
use std::time::Duration;

use extendr_api::prelude::*;
use kaichi_core::counts::{first_bad_count, GuideCounts};
use kaichi_core::decide::{decide, set_probability, Cut, Evidence, Rule};
use kaichi_core::diagnose::{diagnose, Diagnosis};
use kaichi_core::fit::{Column, Columns};
use kaichi_core::io::guide_table::GuideTable;
use kaichi_core::io::samples::{self, Input};
use kaichi_core::io::{self, features, Orientation, ReadOptions};
use kaichi_core::models::{self, Control, DefaultRule, MODELS};
use kaichi_core::run::{on_threads, Progress};
use kaichi_core::stream::worth_columns;
use kaichi_core::Error;
use rayon::prelude::*;

static QUIET_PANICS: Once = Once::new();

fn guard(f: impl FnOnce() -> kaichi_core::Result<Robj>) -> Robj {
    // The default hook would print a backtrace on the user's console.
    QUIET_PANICS.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => condition(&error),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            condition(&Error::Internal(format!(
                "A defect in kaichi stopped the work ({text}). Please report it with the input that shows it."
            )))
        }
    }
}

/// An R condition, to be raised by R itself.
fn condition(error: &Error) -> Robj {
    let class = format!("kaichi_error_{}", error.kind());
    let mut robj: Robj = list!(message = error.to_string(), call = NULL).into();
    let set = robj.set_class([class.as_str(), "kaichi_error", "error", "condition"]);
    debug_assert!(set.is_ok());
    robj
}

/// Reads guide counts: list(p, i, x, guides, cells, batch, columns, facts, choices); `columns` are what is known of the cells of several
/// files, `facts` columns of a guide table, `choices` what is to be said. `samples` are names for the paths, or empty for one path;
/// `options` are named strings, `guides` the ids of the guide table, or empty.
/// @noRd
#[extendr]
fn rs_read(paths: Vec<String>, samples: Vec<String>, options: List, guides: Vec<String>, n_jobs: i32) -> Robj {
    guard(|| {
        let options: HashMap<&str, Robj> = options.iter().collect();
        let option = |name: &str| options.get(name).and_then(|value| value.as_str());
        let options = ReadOptions {
            layer: option("layer"),
            batch: option("batch"),
            modality: option("modality"),
            feature_type: option("feature_type"),
            orientation: option("orientation").map(Orientation::new).transpose()?,
            features: option("features"),
            barcodes: option("barcodes"),
            guides: (!guides.is_empty()).then_some(&guides[..]),
            union: option("union").is_some(),
        };
        let inputs = inputs_of(&paths, samples)?;
        let file = watched(n_jobs, |progress| {
            progress.reading(|| match (&inputs[..], &paths[..]) {
                ([], [path]) => io::read(Path::new(path), &options),
                _ => samples::read(&inputs, &options),
            })
        })?;
        let text =
            |columns: GuideTable| columns.into_iter().map(|(name, values)| (name, Column::Text(values))).collect();
        Ok(list!(
            p = vectors::integers(file.indptr),
            i = vectors::integers(file.guides),
            x = vectors::reals(file.counts),
            guides = file.guide_names,
            cells = vectors::names(file.cell_names),
            batch = file.batch.map_or(Robj::from(()), Robj::from),
            columns = of_cells(&file.samples),
            facts = columns(text(file.facts)),
            choices = file.choices
        )
        .into())
    })
}

/// What is known of the samples, as columns of the cells, each text once.
fn of_cells(samples: &samples::Samples) -> Robj {
    let places: Vec<usize> = samples.of_cells(&(0..samples.n_cells.len()).collect::<Vec<_>>());
    let (names, values): (Vec<&str>, Vec<Robj>) = samples
        .columns
        .iter()
        .map(|(name, values)| {
            // 0 is NA.
            let place = |&sample: &usize| values[sample].as_ref().map_or(0, |_| sample as i32 + 1);
            let texts: Robj =
                values.iter().map(|value| value.as_deref().unwrap_or_default()).collect::<Vec<_>>().into();
            (name.as_str(), vectors::chosen(&texts, places.iter().map(place).collect()))
        })
        .unzip();
    let mut list: Robj = List::from_values(values).into();
    let set = list.set_names(names);
    debug_assert!(set.is_ok());
    list
}

/// The files of a screen; none for one path without a name.
fn inputs_of(paths: &[String], samples: Vec<String>) -> kaichi_core::Result<Vec<Input>> {
    let files: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let samples = match (samples.is_empty(), &files[..]) {
        (true, [_]) => return Ok(vec![]),
        (true, _) => samples::names(&files)?,
        (false, _) => samples,
    };
    Ok(samples.into_iter().zip(files).map(|(sample, path)| Input { sample, path, columns: vec![] }).collect())
}

/// Reads a guide table: list(columns, choices).
/// @noRd
#[extendr]
fn rs_read_guide_table(path: &str) -> Robj {
    guard(|| {
        let (table, choices) = io::guide_table::read(Path::new(path))?;
        let table = table.into_iter().map(|(name, values)| (name, Column::Text(values))).collect();
        Ok(list!(columns = columns(table), choices = choices).into())
    })
}

/// The columns that a guide table lacks but has by the names of others: list(name, from, choices); `from` is the place of each, 1-based.
/// @noRd
#[extendr]
fn rs_guide_columns(columns: Vec<String>) -> Robj {
    guard(|| {
        let (added, choices) = io::guide_table::synonyms(&columns);
        let (names, places): (Vec<&str>, Vec<usize>) = added.into_iter().unzip();
        let from: Vec<i32> = places.into_iter().map(|at| at as i32 + 1).collect();
        Ok(list!(name = names, from = from, choices = choices).into())
    })
}

/// What the names of features tell: list(genes, leftovers); `genes` says why they are genes, "" if they are not; `leftovers` are
/// the places, 1-based, of those that stand for reads without a guide.
/// @noRd
#[extendr]
fn rs_features(names: Vec<String>) -> Robj {
    guard(|| {
        let left: Vec<i32> =
            (1..).zip(&names).filter(|(_, name)| features::is_leftover(name)).map(|(at, _)| at).collect();
        Ok(list!(genes = features::are_genes(&names, &[]).unwrap_or_default(), leftovers = left).into())
    })
}

/// Whether nearly all names are barcodes of cells.
/// @noRd
#[extendr]
fn rs_are_barcodes(names: Vec<String>) -> Robj {
    guard(|| Ok(features::are_barcodes(&names).into()))
}

/// Whether each is the name of a modality of genes.
/// @noRd
#[extendr]
fn rs_is_gene_modality(names: Vec<String>) -> Robj {
    guard(|| Ok(names.iter().map(|name| features::is_gene_modality(name)).collect::<Vec<bool>>().into()))
}

/// The columns of a long table of counts, 1-based: c(cell, guide, count); empty for another table.
/// @noRd
#[extendr]
fn rs_long_columns(columns: Vec<String>) -> Robj {
    guard(|| {
        let places = io::table::long_columns(&columns);
        Ok(places.map_or(vec![], |places| places.map(|at| at as i32 + 1).to_vec()).into())
    })
}

/// What the rows of a wide table are: "guides_by_cells", "cells_by_guides", or "" where nothing tells it.
/// @noRd
#[extendr]
fn rs_orient(rows: Vec<String>, columns: Vec<String>, corner: &str, guides: Vec<String>) -> Robj {
    guard(|| {
        let table = (!guides.is_empty()).then_some(&guides[..]);
        Ok(match io::table::orient(&rows, &columns, corner, table, None) {
            Some((Orientation::GuidesByCells, _)) => Orientation::NAMES[0],
            Some((Orientation::CellsByGuides, _)) => Orientation::NAMES[1],
            None => "",
        }
        .into())
    })
}

/// Whether each is a feature type of guides.
/// @noRd
#[extendr]
fn rs_is_guide_type(types: Vec<String>) -> Robj {
    guard(|| Ok(types.iter().map(|name| features::is_guide_type(name)).collect::<Vec<bool>>().into()))
}

/// Whether each is a name under which people keep guides.
/// @noRd
#[extendr]
fn rs_is_guide_name(names: Vec<String>) -> Robj {
    guard(|| Ok(names.iter().map(|name| features::is_guide_name(name)).collect::<Vec<bool>>().into()))
}

/// The first stored value that is no UMI count: list(position, reason, zeros); position is 1-based, 0 when all are counts.
/// @noRd
#[extendr]
fn rs_first_bad_count(x: &[f64]) -> Robj {
    guard(|| {
        let bad = first_bad_count(x);
        Ok(list!(
            position = bad.map_or(0.0, |b| b.position as f64 + 1.0),
            reason = bad.map_or("", |b| b.reason),
            zeros = x.contains(&0.0)
        )
        .into())
    })
}

/// The registry, one element per column.
/// @noRd
#[extendr]
fn rs_models() -> Robj {
    guard(|| {
        let infos: Vec<_> = MODELS.iter().map(|model| model.info()).collect();
        let text = |f: fn(&models::ModelInfo) -> &'static str| infos.iter().map(f).collect::<Vec<_>>();
        Ok(list!(
            model = text(|i| i.name),
            family = text(|i| i.family),
            fitted_per = text(|i| i.unit),
            uses_depth = infos.iter().map(|i| i.uses_depth).collect::<Vec<_>>(),
            uses_batch = infos.iter().map(|i| i.uses_batch).collect::<Vec<_>>(),
            uses_covariate = MODELS.iter().map(|model| model.uses_covariate()).collect::<Vec<_>>(),
            confidence = text(|i| i.confidence),
            rule = text(|i| match i.rule {
                DefaultRule::SingleStage => "single_stage",
                DefaultRule::MinConfidence(_) => "min_confidence",
                DefaultRule::TopShare(_) => "quantile",
            }),
            cut = infos
                .iter()
                .map(|i| match i.rule {
                    DefaultRule::SingleStage => None,
                    DefaultRule::MinConfidence(cut) | DefaultRule::TopShare(cut) => Some(cut),
                })
                .collect::<Vec<Option<f64>>>(),
            about = text(|i| i.about),
            when = text(|i| i.when)
        )
        .into())
    })
}

/// The place of the model in the registry, 1-based, or the error that names the nearest.
/// @noRd
#[extendr]
fn rs_find_model(name: &str) -> Robj {
    guard(|| {
        let found = models::find(name)?.info().name;
        Ok(MODELS.iter().position(|model| model.info().name == found).map(|at| at as i32 + 1).into())
    })
}

/// The defaults of the control.
/// @noRd
#[extendr]
fn rs_control() -> Robj {
    guard(|| {
        let c = Control::default();
        Ok(list!(
            umi_threshold = c.umi_threshold,
            min_fraction = c.min_fraction,
            starts = c.starts as f64,
            iterations = c.iterations as f64,
            tolerance = c.tolerance,
            gate_cells = c.gate_cells as f64,
            gate_count = f64::from(c.gate_count)
        )
        .into())
    })
}

/// Numbers in the order of rs_control().
fn control_of(control: &[f64]) -> kaichi_core::Result<Control> {
    let &[umi_threshold, min_fraction, starts, iterations, tolerance, gate_cells, gate_count] = control else {
        return Err(Error::Internal("the control has other fields than rs_control()".into()));
    };
    Ok(Control {
        umi_threshold,
        min_fraction,
        starts: starts as usize,
        iterations: iterations as usize,
        tolerance,
        gate_cells: gate_cells as usize,
        gate_count: gate_count as u32,
        ..Control::default()
    })
}

/// Scores every stored count of a guides x cells dgCMatrix: list(score, log_odds, fits, cells, screen). `log_odds` is NULL for models
/// without posteriors, and where the argument does not ask for it; `cells` is NULL or a data.frame with one row per cell, `screen`
/// NULL or one with one row. `control` is in the order of rs_control(),
/// `batch` has codes from 1, or is empty for one batch; `covariate` is empty for none; `depth` is that of the cells, empty where
/// all their guides are here. `n_jobs` 0 is half of the logical cores.
/// @noRd
#[extendr]
#[allow(clippy::too_many_arguments)]
fn rs_score(
    n_guides: i32,
    p: &[i32],
    i: &[i32],
    x: &[f64],
    model: &str,
    control: &[f64],
    batch: &[i32],
    covariate: &[f64],
    depth: &[f64],
    log_odds: bool,
    n_jobs: i32,
) -> Robj {
    guard(|| {
        let model = models::find(model)?;
        let control = Control { log_odds, ..control_of(control)? };
        let batch = (!batch.is_empty()).then(|| batch.iter().map(|&code| code as u32 - 1).collect());
        let scores = watched(n_jobs, |progress| {
            let mut counts = GuideCounts::new(n_guides as usize, p, i, x, batch)?;
            if !covariate.is_empty() {
                counts = counts.with_covariate(covariate)?;
            }
            if !depth.is_empty() {
                counts = counts.with_depth(depth)?;
            }
            model.score(&counts, &control, progress)
        })?;
        let log_odds = match scores.log_odds.is_empty() || !log_odds {
            true => Robj::from(()),
            false => vectors::reals(scores.log_odds),
        };
        Ok(list!(
            score = vectors::reals(scores.score),
            log_odds = log_odds,
            fits = data_frame(scores.fits.columns),
            cells = or_null(scores.cells),
            screen = or_null(scores.screen)
        )
        .into())
    })
}

/// The guides `first` to `last` (1-based) of a guides x cells dgCMatrix: list(p, i, x, depth), depth that of all guides.
/// @noRd
#[extendr]
fn rs_shard(n_guides: i32, p: &[i32], i: &[i32], x: &[f64], first: i32, last: i32, n_jobs: i32) -> Robj {
    guard(|| {
        if !(1 <= first && first <= last && last <= n_guides) {
            return Err(Error::Internal(format!("there are no guides {first} to {last} of {n_guides}")));
        }
        let (shard, depth) = on_threads(threads(n_jobs), || {
            let counts = GuideCounts::new(n_guides as usize, p, i, x, None)?;
            Ok((counts.shard(first as usize - 1..last as usize), counts.depth().to_vec()))
        })?;
        Ok(list!(
            p = vectors::integers(shard.indptr),
            i = vectors::integers(shard.guides),
            x = vectors::reals(shard.counts),
            depth = vectors::reals(depth)
        )
        .into())
    })
}

/// Calls: list(cells, pairs, p, i, log_odds, guides). `cells` and `pairs` are columns of the data.frames of a guide_calls; `p` and `i`
/// are the pattern of the called pairs; `guides` is what the calls of each guide are worth, by column. `posterior` says that
/// scores are probabilities, `status` how the fit of each guide ended. The argument `log_odds` are
/// those of the scores, or empty; the element is NULL, or with `add_log_odds` those of the called pairs.
/// @noRd
#[extendr]
#[allow(clippy::too_many_arguments)]
fn rs_decide(
    guides: Robj,
    cells: Robj,
    p: &[i32],
    i: &[i32],
    x: &[f64],
    score: &[f64],
    log_odds: &[f64],
    rule: &str,
    cut: f64,
    min_umi: f64,
    posterior: bool,
    add_log_odds: bool,
    status: Vec<String>,
    n_jobs: i32,
) -> Robj {
    guard(|| {
        let n_guides = guides.len();
        let cut = Cut::new(rule, cut).ok_or_else(|| Error::Internal(format!("there is no rule {rule}")))?;
        let na = f64::na();
        let decided = watched(n_jobs, |_| {
            let counts = GuideCounts::new(n_guides, p, i, x, None)?;
            let calls = decide(&counts, Evidence { score, log_odds }, &Rule { cut, min_umi })?;
            let sets = || if posterior { set_probability(&counts, score, &calls) } else { vec![na; counts.n_cells()] };
            let (worth, sets) = rayon::join(|| diagnose(&counts, score, &calls, posterior, &status), sets);
            let mut cell_of_pair = vec![0; calls.pairs.len()];
            for (cell, pair) in (1..).zip(calls.indptr.windows(2)) {
                cell_of_pair[pair[0]..pair[1]].fill(cell);
            }
            // Each count is fetched once for all columns.
            let of_cell = |&at: &Option<usize>| match at {
                Some(at) => ((i[at] + 1, x[at] as i32), score[at]),
                None => ((0, i32::na()), na),
            };
            let of_pair = |&at: &usize| ((i[at], i[at] + 1), (x[at] as i32, score[at]));
            let ((guide_of_cell, count_of_cell), score_of_cell) = calls.best.par_iter().map(of_cell).unzip();
            let ((rows, guide_of_pair), (count_of_pair, score_of_pair)) = calls.pairs.par_iter().map(of_pair).unzip();
            Ok(Decided {
                guide_of_cell,
                count_of_cell,
                score_of_cell,
                n_of_cell: calls.indptr.par_windows(2).map(|pair| (pair[1] - pair[0]) as i32).collect(),
                sets,
                cell_of_pair,
                guide_of_pair,
                count_of_pair,
                score_of_pair,
                log_odds_of_pair: add_log_odds.then(|| calls.pairs.par_iter().map(|&at| log_odds[at]).collect()),
                starts: calls.indptr.par_iter().map(|&at| at as i32).collect(),
                rows,
                worth,
            })
        })?;
        let (none, many) = (|n: &i32| *n == 0, |n: &i32| *n > 1);
        let is_unassigned = Logicals::from_values(decided.n_of_cell.iter().map(none));
        let is_multi_infected = Logicals::from_values(decided.n_of_cell.iter().map(many));
        Ok(list!(
            cells = list!(
                cell_barcode = &cells,
                guide_id = vectors::chosen(&guides, decided.guide_of_cell),
                umi_count = vectors::integers(decided.count_of_cell),
                assignment_confidence = vectors::reals(decided.score_of_cell),
                is_unassigned = is_unassigned,
                is_multi_infected = is_multi_infected,
                n_guides_detected = vectors::integers(decided.n_of_cell),
                set_probability = vectors::reals(decided.sets)
            ),
            pairs = list!(
                cell_barcode = vectors::chosen(&cells, decided.cell_of_pair),
                guide_id = vectors::chosen(&guides, decided.guide_of_pair),
                umi_count = vectors::integers(decided.count_of_pair),
                assignment_confidence = vectors::reals(decided.score_of_pair)
            ),
            p = vectors::integers(decided.starts),
            i = vectors::integers(decided.rows),
            log_odds = decided.log_odds_of_pair.map_or(Robj::from(()), vectors::reals),
            guides = columns(worth_columns(&decided.worth))
        )
        .into())
    })
}

/// The columns of rs_decide(), gathered on all threads.
struct Decided {
    /// 1-based, 0 for none.
    guide_of_cell: Vec<i32>,
    count_of_cell: Vec<i32>,
    score_of_cell: Vec<f64>,
    n_of_cell: Vec<i32>,
    sets: Vec<f64>,
    cell_of_pair: Vec<i32>,
    guide_of_pair: Vec<i32>,
    count_of_pair: Vec<i32>,
    score_of_pair: Vec<f64>,
    log_odds_of_pair: Option<Vec<f64>>,
    /// Of the pattern of the called pairs.
    starts: Vec<i32>,
    rows: Vec<i32>,
    worth: Vec<Diagnosis>,
}

/// None becomes NA.
fn reals(values: impl Iterator<Item = Option<f64>>) -> Robj {
    vectors::reals(values.map(|value| value.unwrap_or(f64::na())).collect())
}

/// NaN becomes NA.
fn missing(values: impl Iterator<Item = f64>) -> Robj {
    reals(values.map(|value| (!value.is_nan()).then_some(value)))
}

extern "C" {
    fn R_CheckUserInterrupt();
    fn R_ToplevelExec(
        f: Option<unsafe extern "C" fn(*mut std::ffi::c_void)>,
        data: *mut std::ffi::c_void,
    ) -> std::ffi::c_int;
}

unsafe extern "C" fn check_interrupt(_: *mut std::ffi::c_void) {
    // SAFETY: called by R_ToplevelExec on R's own thread; this frame owns nothing that a long jump would leak.
    unsafe { R_CheckUserInterrupt() }
}

/// Whether R shows progress.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// From now on [`watched`] tells R how far the work is, or no longer does.
/// @noRd
#[extendr]
fn rs_show_progress(show: bool) -> Robj {
    guard(|| {
        SHOWN.store(show, Ordering::Relaxed);
        Ok(().into())
    })
}

/// Shows in R how far the work is; false where the user pressed Ctrl-C meanwhile. On R's thread only.
fn tick(progress: &Progress) -> bool {
    let call = format!("kaichi:::progress_tick({}, {})", progress.done(), progress.total());
    // The function in R catches its errors, so that an error here is a jump that only Ctrl-C makes.
    eval_string(&call).is_ok_and(|went_on| went_on.as_bool() != Some(false))
}

fn threads(n_jobs: i32) -> usize {
    match n_jobs {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1),
        n => n as usize,
    }
}

/// Runs the work on its own threads while R's thread looks out for Ctrl-C and shows how far the work is.
fn watched<T: Send>(
    n_jobs: i32,
    work: impl FnOnce(&Progress) -> kaichi_core::Result<T> + Send,
) -> kaichi_core::Result<T> {
    let progress = Progress::default();
    let done = std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        let worker = scope.spawn(|| {
            let result = on_threads(threads(n_jobs), || work(&progress));
            // The receiver outlives this thread; a failed send would only lose the wake-up.
            let _ = send.send(());
            drop(send);
            result
        });
        while let Err(mpsc::RecvTimeoutError::Timeout) = receive.recv_timeout(Duration::from_millis(100)) {
            // SAFETY: on R's thread; R_ToplevelExec catches the jump of R_CheckUserInterrupt and returns 0.
            let went_on = unsafe { R_ToplevelExec(Some(check_interrupt), std::ptr::null_mut()) };
            if went_on == 0 || (SHOWN.load(Ordering::Relaxed) && !tick(&progress)) {
                progress.cancel();
            }
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Work that was over by then must not swallow the Ctrl-C: R has taken it as seen.
    done.and_then(|value| progress.check().map(|()| value))
}

/// A named list of the columns.
fn columns(columns: Vec<(String, Column)>) -> Robj {
    let (names, values): (Vec<String>, Vec<Robj>) = columns
        .into_iter()
        .map(|(name, column)| {
            let value: Robj = match column {
                Column::Real(values) => missing(values.into_iter()),
                Column::Integer(values) => values.into(),
                Column::Logical(values) => values.into(),
                Column::Text(values) => values.into(),
            };
            (name, value)
        })
        .unzip();
    let mut list: Robj = List::from_values(values).into();
    let set = list.set_names(names);
    debug_assert!(set.is_ok());
    list
}

/// A data.frame, or NULL where there are no columns.
fn or_null(table: Columns) -> Robj {
    match table.is_empty() {
        true => Robj::from(()),
        false => data_frame(table),
    }
}

fn data_frame(table: Columns) -> Robj {
    let n_rows = table.last().map_or(0, |(_, column)| column.len());
    let mut frame = columns(table);
    let set = frame
        .set_class(["data.frame"])
        .and_then(|f| f.set_attrib(row_names_symbol(), Robj::from([i32::MIN, -(n_rows as i32)])));
    debug_assert!(set.is_ok());
    frame
}

extendr_module! {
    mod kaichi;
    use simulate;
    use write;
    fn rs_are_barcodes;
    fn rs_control;
    fn rs_decide;
    fn rs_features;
    fn rs_find_model;
    fn rs_first_bad_count;
    fn rs_guide_columns;
    fn rs_is_gene_modality;
    fn rs_is_guide_name;
    fn rs_is_guide_type;
    fn rs_long_columns;
    fn rs_models;
    fn rs_orient;
    fn rs_read;
    fn rs_read_guide_table;
    fn rs_score;
    fn rs_shard;
    fn rs_show_progress;
}
