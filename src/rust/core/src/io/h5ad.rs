//! .h5ad. Reader (anndata 0.7 and later): counts, cell and guide names, and one column of obs; `write` is the writer.
//!
//! It goes by the encodings that the file states and refuses those it does not know. Format:
//! <https://anndata.readthedocs.io/en/latest/fileformat-prose.html>.

#[allow(unsafe_code)]
mod chunks;
pub(crate) mod frame;
mod heap;
pub(crate) mod matrix;
pub(crate) mod quiet;
pub mod scores;
#[allow(unsafe_code)]
mod texts;
mod unchunked;
pub(crate) mod values;
pub mod write;
#[allow(unsafe_code)]
mod zstd;

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use hdf5::{Group, LinkInfo, LinkType, LocationType};

use self::frame::Frame;
use self::matrix::Matrix;
use self::values::{encoding, quoted, Source};
use super::features::{self, Chosen, Described};
use super::guide_table::GuideTable;
use super::samples::Samples;
use super::{refuse, refuse_names, words, GuideFile, ReadOptions, FORMATS};
use crate::{Error, Result};

/// Reads `X`, or the layer, of the .h5ad at `path`, and the obs column with the batch where one is asked for.
pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    refuse(options.modality, "modality", source, "an .h5ad", "it has one modality. Leave it out")?;
    check_signature(source)?;
    quiet::quietly(|| read_anndata(source, &*open(source)?, options))
}

/// Whether this is an .h5ad that can be opened, with guides only, whose counts in `layer` are of all that var names.
pub fn is(path: &Path, layer: Option<&str>) -> bool {
    let source = Source(path);
    let only_guides = || -> Result<bool> {
        let file = open(source)?;
        if is_raw(&file, layer) {
            return Ok(false);
        }
        let var = Frame::open(source, &file, "var", "guide")?;
        Ok(guides_of(source, &var, &var.names()?, &ReadOptions::default())?.is_all())
    };
    check_signature(source).is_ok() && quiet::quietly(|| only_guides() == Ok(true))
}

/// The type of each feature, as scanpy and muon name it.
fn feature_types(var: &Frame) -> Result<Option<Vec<String>>> {
    let types = match var.text("feature_types")? {
        Some(types) => Some(types),
        None => var.text("feature_type")?,
    };
    Ok(types.map(|types| types.into_iter().map(Option::unwrap_or_default).collect()))
}

/// The guides among the features that var names.
fn guides_of(source: Source, var: &Frame, names: &[String], options: &ReadOptions) -> Result<Chosen> {
    let types = feature_types(var)?.filter(|types| types.len() == names.len());
    // What cannot be read tells nothing of genes.
    let also = ["gene_ids", "gene_id"].iter().filter_map(|column| var.text(column).ok().flatten());
    let also = also.filter(|ids| ids.len() == names.len());
    let also: Vec<Vec<String>> = also.map(|ids| ids.into_iter().map(Option::unwrap_or_default).collect()).collect();
    let described = Described { names, also: &also, types: types.as_deref() };
    features::choose(source, described, options.feature_type, options.guides)
}

/// An AnnData: a file, or a modality of one.
pub(super) fn read_anndata(source: Source, file: &Group, options: &ReadOptions) -> Result<GuideFile> {
    refuse(options.orientation, "orientation", source, "an AnnData", "its rows are always cells. Leave it out")?;
    refuse_names(options, source, "an AnnData")?;
    let what = matrix_name(source, file, options.layer)?;
    let obs = Frame::open(source, file, "obs", "cell")?;
    let raw = is_raw(file, options.layer).then(|| file.group("raw")).transpose();
    let raw = raw.map_err(|error| source.damaged("raw", error))?;
    let var = Frame::open(source, raw.as_ref().unwrap_or(file), "var", "guide")?;
    let cell_names = obs.index()?;
    let names = var.names()?;
    var.check_length(names.len())?;
    let chosen = guides_of(source, &var, &names, options)?;
    // Genes may share a symbol, guides may not share a name.
    let guide_names = chosen.of(&names);
    var.check_names(&names, &chosen.kept)?;
    features::refuse_transposed(
        source,
        &guide_names,
        &cell_names,
        "Write it the other way round in Python: adata.T.write_h5ad(...).",
    )?;
    let matrix = Matrix { source, file, what: &what, cells: &cell_names, guides: &names };
    let rows = match chosen.is_all() {
        true => matrix.read()?,
        false => matrix.read_some(&matrix.blocks()?, &chosen.places)?,
    };
    let batch = options.batch.map(|column| obs.batch(column, &cell_names)).transpose()?;
    Ok(GuideFile {
        indptr: rows.indptr,
        guides: rows.guides,
        counts: rows.counts,
        facts: facts(&var, names.len(), Some(&chosen)),
        choices: chosen.choices,
        cell_names,
        guide_names,
        batch,
        samples: Samples::default(),
    })
}

/// What var says of the guides among its `n` features.
fn facts(var: &Frame, n: usize, chosen: Option<&Chosen>) -> GuideTable {
    let fact = |name: &str| {
        let mut columns = var.columns();
        while let Some(at) = words::find_guide_column(&columns, name) {
            // A column that cannot be read says nothing of the guides.
            let values = var.text(&columns.swap_remove(at)).ok().flatten().filter(|values| values.len() == n);
            let fact = values.and_then(|values| {
                features::fact(name, chosen.map_or_else(|| values.clone(), |chosen| chosen.of(&values)))
            });
            if fact.is_some() {
                return fact;
            }
        }
        None
    };
    words::GUIDE_COLUMNS[1..].iter().filter_map(|(name, _)| fact(name)).collect()
}

/// Does `read`, which reads the file. What it read of one that was cut short or written to meanwhile is refused: HDF5 takes what
/// is beyond the end of the file as zeros.
pub(crate) fn unchanged<T>(source: Source, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let state = || std::fs::metadata(source.0).ok().map(|file| (file.len(), file.modified().ok()));
    let before = state();
    let done = read();
    match done {
        Err(Error::Interrupted) => done,
        _ if state() != before => Err(source.file("has changed while it was read. Run again.")),
        _ => done,
    }
}

/// A file whose signature was checked.
pub(crate) fn open(source: Source) -> Result<hdf5::File> {
    let file = open_hdf5(source)?;
    check_kind(source, &file)?;
    Ok(file)
}

pub(crate) fn open_hdf5(source: Source) -> Result<hdf5::File> {
    let file = hdf5::File::open(source.0).map_err(|error| {
        source.file(format!(
            "is an HDF5 file that cannot be opened: {error}.\n  It may be cut short, or still open for writing."
        ))
    })?;
    check_links(source, &file)?;
    Ok(file)
}

/// Refuses links into other files, wherever they are: any path within the file may go through one.
fn check_links(source: Source, file: &hdf5::File) -> Result<()> {
    let damaged = |error| source.damaged("its groups", error);
    let root = file.group("/").map_err(damaged)?;
    // Of the groups that several links lead to: links may go in circles.
    let mut seen = vec![root.loc_info().map_err(damaged)?.token];
    let mut groups = vec![root];
    while let Some(group) = groups.pop() {
        let collect = |_: &Group, name: &str, link: LinkInfo, links: &mut Vec<_>| {
            links.push((name.to_owned(), link.link_type));
            true
        };
        for (name, kind) in group.iter_visit_default(vec![], collect).map_err(damaged)? {
            if kind == LinkType::External {
                let path = format!("{}/{name}", group.name().trim_end_matches('/'));
                return Err(source.format_in(format!(
                    "{} is a link to another file, which kaichi does not follow.\n  Write a file without such links.",
                    path.trim_start_matches('/')
                )));
            }
            // What a soft link names is in this file, or nowhere.
            let Ok(object) = group.loc_info_by_name(&name) else { continue };
            if kind == LinkType::Soft || object.loc_type != LocationType::Group {
                continue;
            }
            if object.num_links > 1 {
                if seen.contains(&object.token) {
                    continue;
                }
                seen.push(object.token);
            }
            groups.push(group.group(&name).map_err(damaged)?);
        }
    }
    Ok(())
}

/// Tells an HDF5 file by its content, not its name. The signature may follow a user block of 512 * 2^n bytes.
pub(crate) fn check_signature(source: Source) -> Result<()> {
    const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => source.file("does not exist. Check the path and the working directory."),
        _ => source.file(format!("cannot be read: {error}.")),
    };
    let metadata = std::fs::metadata(source.0).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(source.file("is a folder. Give the path of a file."));
    }
    // To open a pipe would wait for its other end.
    if !metadata.is_file() {
        return Err(source.file("is no regular file but a pipe or a device. Write its content to a file first."));
    }
    let mut file = std::fs::File::open(source.0).map_err(unreadable)?;
    let mut offset = 0;
    while offset + 8 <= metadata.len() {
        let mut head = [0; 8];
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        file.read_exact(&mut head).map_err(unreadable)?;
        if head == SIGNATURE {
            return Ok(());
        }
        offset = (offset * 2).max(512);
    }
    Err(source.file(super::foreign::file(source).unwrap_or_else(|| {
        format!(
            "is neither an HDF5 nor a Matrix Market file, nor a table of counts. kaichi reads {FORMATS}.\n  Read other formats with \
             the package made for them and give the guides x cells matrix."
        )
    })))
}

/// For what works on an .h5ad only.
fn check_kind(source: Source, file: &hdf5::File) -> Result<()> {
    if file.link_exists("obs") && file.link_exists("var") && !file.link_exists("mod") {
        return Ok(());
    }
    Err(source.file("is an HDF5 file but no .h5ad, which has obs and var. Give an .h5ad."))
}

/// Whether the layer is `raw`, the counts that AnnData keeps beside X, with features of their own.
fn is_raw(file: &Group, layer: Option<&str>) -> bool {
    layer == Some("raw") && has_raw(file) && !layer_names(file).iter().any(|name| name == "raw")
}

fn has_raw(file: &Group) -> bool {
    file.group("raw").is_ok_and(|raw| raw.link_exists("X") && raw.link_exists("var"))
}

/// `X`, `layers/<layer>` or `raw/X`, known to exist.
pub(crate) fn matrix_name(source: Source, file: &Group, layer: Option<&str>) -> Result<String> {
    let layers = layer_names(file);
    let Some(layer) = layer else {
        // anndata writes a missing X as no X, and since 0.12 as a scalar of encoding "null".
        let null = matches!(file.dataset("X"), Ok(x) if encoding(&x).is_some_and(|e| e.kind == "null"));
        if file.link_exists("X") && !null {
            return Ok("X".to_owned());
        }
        return Err(source.format(match layers.is_empty() {
            true => "has no X and no layers, so it holds no counts.".to_owned(),
            false => format!("has no X.\n  Give one of its layers as `layer`: {}.", quoted(&layers)),
        }));
    };
    if layers.iter().any(|name| name == layer) {
        return Ok(format!("layers/{layer}"));
    }
    if is_raw(file, Some(layer)) {
        return Ok("raw/X".to_owned());
    }
    Err(source.format(match layers.is_empty() {
        true => format!("has no layer \"{layer}\"; it has no layers.\n  Leave `layer` out to read X."),
        false => format!("has no layer \"{layer}\".\n  Its layers are {}.", quoted(&layers)),
    }))
}

fn layer_names(file: &Group) -> Vec<String> {
    file.group("layers").and_then(|layers| layers.member_names()).unwrap_or_default()
}

/// The most stored counts, cells or guides: R and the core index with 32 bits.
const MOST: usize = i32::MAX as usize;

fn too_many(source: Source, what: &str, n: usize) -> Error {
    source.counts(format!("{what}: {n} are more than the 2147483647 that kaichi can hold. Split the file."))
}
