//! Readers: one file per format, each the only user of what it needs. [`read`] tells the format by the content.

use std::collections::BTreeSet;
use std::path::Path;

use hdf5::LocationType;

use crate::counts::GuideCounts;
use crate::{Error, Result};

mod entries;
pub mod features;
mod foreign;
pub mod guide_table;
pub mod h5ad;
pub mod h5mu;
pub mod inspect;
mod molecules;
mod mtx;
pub mod samples;
pub mod table;
mod tenx;
mod text;
pub mod words;

use guide_table::GuideTable;
use h5ad::values::Source;
use samples::Samples;

/// What the user may choose of a file; what is not chosen is found, or an error that names the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReadOptions<'a> {
    /// Of an .h5ad, or of a modality: the layer with the counts, or `raw`; `X` if not said.
    pub layer: Option<&'a str>,
    /// The column of the table of cells with the batch of each.
    pub batch: Option<&'a str>,
    /// Of an .h5mu: the modality with the guides.
    pub modality: Option<&'a str>,
    /// Which features are guides, where the file says the type of each.
    pub feature_type: Option<&'a str>,
    /// Of an .mtx, or a wide table: what its rows are.
    pub orientation: Option<Orientation>,
    /// Of an .mtx: the file that names its features, where it is not found beside it.
    pub features: Option<&'a str>,
    /// Of an .mtx: the file that names its cells.
    pub barcodes: Option<&'a str>,
    /// The ids of the guide table, by which guides are found among features that the file does not tell apart.
    pub guides: Option<&'a [String]>,
    /// Of several files: whether they may have different guides, all of which are taken.
    pub union: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    GuidesByCells,
    CellsByGuides,
}

impl Orientation {
    pub const NAMES: [&'static str; 2] = ["guides_by_cells", "cells_by_guides"];

    pub fn new(name: &str) -> Result<Self> {
        match name {
            "guides_by_cells" => Ok(Orientation::GuidesByCells),
            "cells_by_guides" => Ok(Orientation::CellsByGuides),
            _ => Err(Error::Argument(format!(
                "`orientation` must be \"{}\" or \"{}\", not \"{name}\".",
                Self::NAMES[0],
                Self::NAMES[1]
            ))),
        }
    }
}

/// Reads guide counts from a file, or a folder, of any format there is a reader for; from a sample sheet or a folder of several
/// samples those of all.
pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    match samples::find(path)? {
        samples::Found::Several(inputs) => samples::read(&inputs, options),
        samples::Found::One(path, choice) => {
            let mut file = read_one(&path, options)?;
            file.choices.splice(0..0, choice);
            Ok(file)
        }
    }
}

fn read_one(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    if options.batch == Some(samples::SUFFIX) {
        let mut file = read_counts(path, &ReadOptions { batch: None, ..*options })?;
        file.batch = Some(samples::suffixes(path, &file.cell_names)?);
        return Ok(file);
    }
    read_counts(path, options)
}

fn read_counts(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    h5ad::unchanged(source, || match kind(source)? {
        Kind::H5ad => h5ad::read(path, options),
        Kind::H5mu => h5mu::read(path, options),
        Kind::TenxH5 => tenx::read(path, options),
        Kind::MoleculeInfo => molecules::read(path, options),
        Kind::Mtx => mtx::read(path, options),
        Kind::Table => table::read(path, options),
    })
}

enum Kind {
    H5ad,
    H5mu,
    TenxH5,
    MoleculeInfo,
    Mtx,
    Table,
}

fn kind(source: Source) -> Result<Kind> {
    if let Some(kind) = kind_without_hdf5(source)? {
        return Ok(kind);
    }
    h5ad::check_signature(source)?;
    h5ad::quiet::quietly(|| {
        let file = h5ad::open_hdf5(source)?;
        let has = |name| file.link_exists(name);
        Ok(if has("mod") {
            Kind::H5mu
        } else if has("obs") && has("var") {
            Kind::H5ad
        } else if matches!(file.loc_type_by_name("matrix"), Ok(LocationType::Group)) {
            Kind::TenxH5
        } else if has("barcode_idx") {
            Kind::MoleculeInfo
        } else {
            return Err(source.file(
                tenx::of_version_2(&file)
                    .or_else(|| foreign::hdf5(&file, source.0))
                    .unwrap_or_else(|| format!("is an HDF5 file of no kind that kaichi knows. It reads {FORMATS}.")),
            ));
        })
    })
}

/// The kind of a folder, or of a file of text.
fn kind_without_hdf5(source: Source) -> Result<Option<Kind>> {
    if source.0.is_dir() {
        return match foreign::folder(source.0) {
            Some(text) => Err(source.file(text)),
            None => Ok(Some(Kind::Mtx)),
        };
    }
    // To open a pipe would wait for its other end.
    if !source.0.is_file() {
        return Ok(None);
    }
    if mtx::is(source)? {
        return Ok(Some(Kind::Mtx));
    }
    Ok(table::is(source)?.then_some(Kind::Table))
}

/// For errors.
const FORMATS: &str =
    ".h5ad, .h5mu, 10x .h5 (feature_bc_matrix and molecule_info), MTX folders, and counts in CSV or TSV";

/// The files with names that only a Matrix Market file has.
fn refuse_names(options: &ReadOptions, source: Source, format: &str) -> Result<()> {
    refuse(options.features, "features", source, format, "it names its own features. Leave it out")?;
    refuse(options.barcodes, "barcodes", source, format, "it names its own cells. Leave it out")
}

/// An option of [`ReadOptions`] that a format has no use for.
fn refuse(value: Option<impl Sized>, name: &str, source: Source, format: &str, why: &str) -> Result<()> {
    match value {
        None => Ok(()),
        Some(_) => Err(Error::Argument(format!(
            "`{name}` means nothing for the file \"{}\", {format}: {why}.",
            source.0.display()
        ))),
    }
}

/// What a guide-count file holds, as the compressed rows of a cells x guides matrix, which are byte for byte the
/// compressed columns of R's guides x cells `dgCMatrix`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GuideFile {
    /// Start of each cell's counts; length cells + 1.
    pub indptr: Vec<i32>,
    /// Guide of each count, 0-based, increasing within a cell.
    pub guides: Vec<i32>,
    /// UMIs, whole and > 0 (explicit zeros are dropped).
    pub counts: Vec<f64>,
    pub cell_names: Vec<String>,
    pub guide_names: Vec<String>,
    /// The obs column that was asked for.
    pub batch: Option<Vec<String>>,
    /// Of several files, their samples; none of one file.
    pub samples: Samples,
    /// What the file says of its guides: columns of a guide table (`target`, `type`, `sequence`), one value for each guide.
    pub facts: GuideTable,
    /// What was chosen for the user, each one sentence to be shown.
    pub choices: Vec<String>,
}

impl GuideFile {
    /// The batches in the order of their codes: sorted by bytes, as R sorts the levels of a factor in the C locale.
    pub fn batches(&self) -> Option<Vec<&str>> {
        let levels: BTreeSet<&str> = self.batch.as_ref()?.iter().map(String::as_str).collect();
        Some(levels.into_iter().collect())
    }

    /// The counts for the models, with the batch of each cell where one was read.
    pub fn guide_counts(&self) -> Result<GuideCounts<'_>> {
        let codes = self.batch.as_ref().zip(self.batches()).map(|(batch, levels)| {
            // Every batch is one of the levels, so the point of insertion is its place.
            batch.iter().map(|name| levels.partition_point(|level| *level < name.as_str()) as u32).collect()
        });
        GuideCounts::new(self.guide_names.len(), &self.indptr, &self.guides, &self.counts, codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(batch: Option<&[&str]>) -> GuideFile {
        GuideFile {
            indptr: vec![0, 1, 1, 2, 3],
            guides: vec![1, 0, 1],
            counts: vec![3.0, 1.0, 2.0],
            cell_names: ["a", "b", "c", "d"].map(String::from).to_vec(),
            guide_names: ["g", "h"].map(String::from).to_vec(),
            batch: batch.map(|names| names.iter().map(|name| name.to_string()).collect()),
            ..GuideFile::default()
        }
    }

    #[test]
    fn batches_are_coded_in_the_order_of_their_bytes() {
        let file = file(Some(&["b", "10", "B", "2"]));
        assert_eq!(file.batches().unwrap(), ["10", "2", "B", "b"]);
        let counts = file.guide_counts().unwrap();
        assert_eq!((counts.batch(), counts.n_batches()), (&[3, 0, 2, 1][..], 4));
        assert_eq!((counts.n_cells(), counts.n_guides(), counts.depth()), (4, 2, &[3.0, 0.0, 1.0, 2.0][..]));
    }

    #[test]
    fn without_a_batch_there_is_one() {
        let file = file(None);
        assert_eq!(file.batches(), None);
        assert_eq!(file.guide_counts().unwrap().batch(), [0, 0, 0, 0]);
    }
}
