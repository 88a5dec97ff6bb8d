//! Calls to files.
use std::path::Path;

use extendr_api::prelude::*;
use kaichi_core::decide::{Cut, Rule};
use kaichi_core::fit::Column;
use kaichi_core::io::h5ad::write::{self, Block, Content, Draft, Kind, Note, Stored};
use kaichi_core::io::{h5ad, h5mu};
use kaichi_core::stream::{self, worth_columns, Job};
use kaichi_core::{models, Error};

use crate::{columns, control_of, data_frame, guard, or_null, watched};

/// Whether the file is an .h5ad that can be opened, with guides only in that layer, NULL for X.
/// @noRd
#[extendr]
fn rs_is_h5ad(path: &str, layer: Nullable<String>) -> Robj {
    guard(|| {
        let layer = Option::<String>::from(layer);
        Ok(h5ad::is(Path::new(path), layer.as_deref()).into())
    })
}

/// An error where that file cannot be written; `input` is "" where the content comes from no file.
/// @noRd
#[extendr]
fn rs_check_output(path: &str, input: &str, overwrite: bool) -> Robj {
    guard(|| {
        let input = (!input.is_empty()).then_some(Path::new(input));
        Draft::new(Path::new(path), input, overwrite)?;
        Ok(().into())
    })
}

/// From an .h5ad to an .h5ad, by blocks of cells: list(fits, screen, guides, worth, n_cells), as of rs_score() and rs_decide(), and the
/// names of the guides. `notes` is a named list of strings and numbers for uns/kaichi.
/// @noRd
#[extendr]
#[allow(clippy::too_many_arguments)]
fn rs_stream(
    input: &str,
    layer: Nullable<String>,
    output: &str,
    overwrite: bool,
    model: &str,
    control: &[f64],
    rule: &str,
    cut: f64,
    min_umi: f64,
    notes: List,
    n_jobs: i32,
) -> Robj {
    guard(|| {
        let layer: Option<String> = layer.into();
        let control = control_of(control)?;
        let job = Job {
            input: Path::new(input),
            layer: layer.as_deref(),
            output: Path::new(output),
            overwrite,
            model: models::find(model)?,
            control: &control,
            rule: Rule { cut: cut_of(rule, cut)?, min_umi },
            notes: &notes_of(&notes)?,
        };
        let done = watched(n_jobs, |progress| stream::assign(&job, progress))?;
        Ok(list!(
            fits = data_frame(done.fits.columns),
            screen = or_null(done.screen),
            guides = done.guides,
            worth = columns(worth_columns(&done.worth)),
            n_cells = done.n_cells as f64
        )
        .into())
    })
}

/// Calls in memory to an .h5ad, or as a modality to an .h5mu. `p`, `i`, `x` and `score` (which may be empty) are those of the
/// guides x cells counts, `called_p` and `called_i` the pattern of the calls; `obs` and `var` are lists of columns, as are `fits`
/// (NULL where they are in `var`) and `screen` (NULL for none); `other` is for an .h5ad the one whose columns are kept, for an .h5mu the file with the other
/// modalities, or "".
/// @noRd
#[extendr]
#[allow(clippy::too_many_arguments)]
fn rs_write(
    path: &str,
    as_h5mu: bool,
    overwrite: bool,
    other: &str,
    guides: Vec<String>,
    cells: Vec<String>,
    p: &[i32],
    i: &[i32],
    x: &[f64],
    score: &[f64],
    called_p: &[i32],
    called_i: &[i32],
    obs: List,
    var: List,
    notes: List,
    fits: Nullable<List>,
    screen: Nullable<List>,
) -> Robj {
    guard(|| {
        let (fits, screen): (Option<List>, Option<List>) = (fits.into(), screen.into());
        let notes = notes_of(&notes)?;
        let content = Content {
            cells: &cells,
            guides: &guides,
            matrices: Block {
                starts: p,
                guides: i,
                counts: x,
                scores: score,
                log_odds: &[],
                called_starts: called_p,
                called: called_i,
            },
            obs: stored(&obs)?,
            var: stored(&var)?,
            notes: &notes,
            fits: fits.map(|fits| stored(&fits)).transpose()?,
            screen: screen.map(|screen| stored(&screen)).transpose()?,
        };
        let other = (!other.is_empty()).then_some(Path::new(other));
        let write = if as_h5mu { h5mu::write } else { write::write };
        write(Path::new(path), overwrite, other, content)?;
        Ok(().into())
    })
}

fn cut_of(rule: &str, cut: f64) -> kaichi_core::Result<Cut> {
    Cut::new(rule, cut).ok_or_else(|| Error::Internal(format!("there is no rule {rule}")))
}

fn unknown(name: &str) -> Error {
    Error::Internal(format!("{name} is of a type that cannot be written"))
}

fn notes_of(notes: &List) -> kaichi_core::Result<Vec<(String, Note)>> {
    let note = |(name, value): (&str, Robj)| {
        let text = value.as_str().map(|text| Note::Text(text.to_owned()));
        let note = text.or_else(|| value.as_real().map(Note::Number)).ok_or_else(|| unknown(name))?;
        Ok((name.to_owned(), note))
    };
    notes.iter().map(note).collect()
}

/// The columns of a data.frame.
fn stored(columns: &List) -> kaichi_core::Result<Vec<Stored>> {
    columns.iter().map(|(name, values)| column(name, values)).collect()
}

fn column(name: &str, values: Robj) -> kaichi_core::Result<Stored> {
    let integer = |value: &i32| (!value.is_na()).then_some(*value);
    let column = if values.is_factor() {
        let levels = values.get_attrib(levels_symbol()).and_then(|levels| levels.as_string_vector());
        let codes = values.as_integer_slice().ok_or_else(|| unknown(name))?;
        return Ok(Stored {
            name: name.to_owned(),
            kind: Kind::Category(levels.ok_or_else(|| unknown(name))?),
            values: Column::Integer(codes.iter().map(|code| integer(code).map(|code| code - 1)).collect()),
        });
    } else if let Some(values) = values.as_logical_slice() {
        Column::Logical(values.iter().map(|value| (!value.is_na()).then(|| value.is_true())).collect())
    } else if let Some(values) = values.as_integer_slice() {
        Column::Integer(values.iter().map(integer).collect())
    } else if let Some(values) = values.as_real_slice() {
        // One NaN, whatever R's NA has in its other bits: files must not tell who wrote them.
        Column::Real(values.iter().map(|&value| if value.is_nan() { f64::NAN } else { value }).collect())
    } else if let Some(values) = values.as_str_iter() {
        Column::Text(values.map(|value| (!value.is_na()).then(|| value.to_owned())).collect())
    } else {
        return Err(unknown(name));
    };
    Ok(Stored::new(name.to_owned(), column))
}

extendr_module! {
    mod write;
    fn rs_check_output;
    fn rs_is_h5ad;
    fn rs_stream;
    fn rs_write;
}
