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
use super::features::{self, Chosen};
use super::guide_table::GuideTable;
use super::{refuse, GuideFile, ReadOptions, FORMATS};
use crate::{Error, Result};

/// Reads `X`, or the layer, of the .h5ad at `path`, and the obs column with the batch where one is asked for.
pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    refuse(options.modality, "modality", source, "an .h5ad", "it has one modality. Leave it out")?;
    check_signature(source)?;
    quiet::quietly(|| read_anndata(source, &*open(source)?, options))
}

/// Whether this is an .h5ad that can be opened, with guides only.
pub fn is(path: &Path) -> bool {
    let source = Source(path);
    let only_guides = || -> Result<bool> {
        let file = open(source)?;
        let var = Frame::open(source, &file, "var", "guide")?;
        Ok(match feature_types(&var)? {
            Some(types) => features::choose(source, &types, None)?.is_all(),
            None => true,
        })
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

/// What var may say of the guides: columns of a guide table, and the names that files have for them.
const FACTS: [(&str, &[&str]); 4] = [
    ("target", &["target", "target_gene_name", "target_gene", "intended_target_name"]),
    ("construct", &["construct"]),
    ("type", &["type"]),
    ("sequence", &["sequence", "spacer", "protospacer"]),
];

/// An AnnData: a file, or a modality of one.
pub(super) fn read_anndata(source: Source, file: &Group, options: &ReadOptions) -> Result<GuideFile> {
    refuse(options.orientation, "orientation", source, "an AnnData", "its rows are always cells. Leave it out")?;
    let what = matrix_name(source, file, options.layer)?;
    let obs = Frame::open(source, file, "obs", "cell")?;
    let var = Frame::open(source, file, "var", "guide")?;
    let cell_names = obs.index()?;
    let names = var.index()?;
    let chosen: Option<Chosen> = match feature_types(&var)? {
        Some(types) if types.len() == names.len() => Some(features::choose(source, &types, options.feature_type)?),
        _ => options.feature_type.map(|_| features::take_all(source, &names, options.feature_type)).transpose()?,
    };
    let matrix = Matrix { source, file, what: &what, cells: &cell_names, guides: &names };
    let rows = match &chosen {
        Some(chosen) if !chosen.is_all() => matrix.read_some(&matrix.blocks()?, &chosen.places)?,
        _ => matrix.read()?,
    };
    let batch = options.batch.map(|column| obs.batch(column, &cell_names)).transpose()?;
    let facts = facts(&var, names.len(), chosen.as_ref());
    let (guide_names, choices) = match chosen {
        Some(chosen) => (chosen.of(&names), chosen.choice.into_iter().collect()),
        None => (names, vec![]),
    };
    Ok(GuideFile {
        indptr: rows.indptr,
        guides: rows.guides,
        counts: rows.counts,
        cell_names,
        guide_names,
        batch,
        facts,
        choices,
    })
}

/// What var says of the guides among its `n` features.
fn facts(var: &Frame, n: usize, chosen: Option<&Chosen>) -> GuideTable {
    let fact = |(name, columns): (&str, &[&str])| {
        // A column that cannot be read says nothing of the guides.
        let values = columns.iter().find_map(|column| var.text(column).ok().flatten()).filter(|v| v.len() == n)?;
        features::fact(name, chosen.map_or_else(|| values.clone(), |chosen| chosen.of(&values)))
    };
    FACTS.into_iter().filter_map(fact).collect()
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
    Err(source.file(format!(
        "is neither an HDF5 nor a Matrix Market file. kaichi reads {FORMATS}.\n  Read other formats with the package \
             made for them and give the guides x cells matrix."
    )))
}

/// For what works on an .h5ad only.
fn check_kind(source: Source, file: &hdf5::File) -> Result<()> {
    if file.link_exists("obs") && file.link_exists("var") && !file.link_exists("mod") {
        return Ok(());
    }
    Err(source.file("is an HDF5 file but no .h5ad, which has obs and var. Give an .h5ad."))
}

/// `X` or `layers/<layer>`, known to exist.
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
