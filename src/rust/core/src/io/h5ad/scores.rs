//! The scores of a model as `score` writes them, ours or that of kaichi for Python: X the counts, layers/scores one score for each,
//! layers/log_odds, in newer ones of ours, the log odds of each, uns/kaichi how they came to be.
use std::path::Path;

use super::frame::Frame;
use super::matrix::Matrix;
use super::quiet::quietly;
use super::values::{single_text, Source, Values};
use super::{check_signature, facts, matrix_name, open};
use crate::fit::{Column, Columns};
use crate::io::{GuideFile, ReadOptions};
use crate::Result;

/// All that a decision rests on.
#[derive(Debug)]
pub struct ScoresFile {
    pub counts: GuideFile,
    /// One for each stored count.
    pub score: Vec<f64>,
    /// Of each score; empty where the file does not keep them.
    pub log_odds: Vec<f64>,
    /// As the file names it.
    pub model: String,
    /// JSON.
    pub params: Option<String>,
    /// Columns of the fits, and whether they have a row for each guide.
    pub fits: Columns,
    pub per_guide: bool,
    /// What was learnt of the whole screen; empty where the file does not keep it.
    pub screen: Columns,
    /// The guide table, without the names of the guides; and whether kaichi wrote it into var, or it was there before.
    pub table: Columns,
    pub wrote_table: bool,
}

const AGAIN: &str = "Write it again with kaichi score, or with kaichi assign to an .h5ad.";

pub fn read(path: &Path) -> Result<ScoresFile> {
    let source = Source(path);
    check_signature(source)?;
    quietly(|| read_open(source))
}

fn read_open(source: Source) -> Result<ScoresFile> {
    let file = open(source)?;
    let ours = file.group("uns").and_then(|uns| uns.group("kaichi"));
    let ours = ours.map_err(|_| source.format(format!("has no uns/kaichi, so it holds no scores.\n  {AGAIN}")))?;
    let model = single_text(&ours, "model")
        .ok_or_else(|| source.format(format!("does not name its model (uns/kaichi/model).\n  {AGAIN}")))?;
    if !file.link_exists("layers/scores") {
        let why = format!("has no layer \"scores\"; the model \"{model}\" may decide by itself.\n  {AGAIN}");
        return Err(source.format(why));
    }
    let obs = Frame::open(source, &file, "obs", "cell")?;
    let var = Frame::open(source, &file, "var", "guide")?;
    let (cell_names, guide_names) = (obs.index()?, var.index()?);
    let what = matrix_name(source, &file, None)?;
    let rows = Matrix { source, file: &file, what: &what, cells: &cell_names, guides: &guide_names }.read()?;

    // The values of a layer with the pattern of X. `what` names them, `fault` says what is wrong with one, if anything.
    let layer = |name: &str, what: &str, fault: fn(f64) -> Option<&'static str>| -> Result<Vec<f64>> {
        let path = format!("layers/{name}");
        let group = file.group(&path).map_err(|error| source.damaged(&path, error))?;
        let part = |name| Values::open(source, &group, &path, name);
        let places = |name| part(name)?.integers(|_, place| Ok(place as i32));
        if places("indptr")? != rows.indptr || places("indices")? != rows.guides {
            return Err(
                source.format_in(format!("the {what} are not those of the counts in X, place by place.\n  {AGAIN}"))
            );
        }
        let values = part("data")?.numbers(|position, value| match fault(value) {
            None => Ok(value),
            Some(why) => {
                Err(source.format_in(format!("value {} of the {what} is {value}, {why}.\n  {AGAIN}", position + 1)))
            }
        })?;
        if values.len() != rows.counts.len() {
            return Err(source.format_in(format!(
                "there are {} {what} for {} counts.\n  {AGAIN}",
                values.len(),
                rows.counts.len()
            )));
        }
        Ok(values)
    };
    let score = layer("scores", "scores", |score| {
        (!(score >= 0.0 && score.is_finite())).then_some("which is no number of 0 or more")
    })?;
    let log_odds = match file.link_exists("layers/log_odds") {
        true => layer("log_odds", "log odds", |x| (!x.is_finite()).then_some("which is no finite number"))?,
        false => vec![],
    };

    let typed = |frame: &Frame, names: Vec<String>| -> Result<Vec<(String, Column)>> {
        names.into_iter().map(|name| Ok((name.clone(), frame.typed(&name)?))).collect()
    };
    let per_guide = !ours.link_exists("fits");
    let mut of_table = var.our_columns();
    let mut of_fits = vec![];
    if per_guide {
        // The guide table stands before the fits, whose first column is their status.
        of_fits = of_table.split_off(of_table.iter().position(|name| name == "status").unwrap_or(0));
    }
    let wrote_table = !of_table.is_empty();
    let table = match wrote_table {
        true => typed(&var, of_table)?,
        false => facts(&var, guide_names.len(), None).into_iter().map(|(name, v)| (name, Column::Text(v))).collect(),
    };
    let fits = match per_guide {
        true => typed(&var, of_fits)?,
        false => {
            let fits = Frame::open(source, &ours, "fits", "fit")?;
            typed(&fits, fits.our_columns())?
        }
    };
    let screen = match ours.link_exists("screen") {
        true => {
            let screen = Frame::open(source, &ours, "screen", "screen")?;
            typed(&screen, screen.our_columns())?
        }
        false => vec![],
    };
    Ok(ScoresFile {
        counts: GuideFile {
            indptr: rows.indptr,
            guides: rows.guides,
            counts: rows.counts,
            cell_names,
            guide_names,
            ..GuideFile::default()
        },
        score,
        log_odds,
        model,
        params: single_text(&ours, "model_params"),
        fits,
        per_guide,
        screen,
        table,
        wrote_table,
    })
}

/// The calls in the layer `assigned` of an .h5ad: names of cells and guides, and of each cell the called guides.
pub fn read_calls(path: &Path) -> Result<GuideFile> {
    super::read(path, &ReadOptions { layer: Some("assigned"), ..ReadOptions::default() })
}
