//! feature_bc_matrix.h5 of Cell Ranger 3 and later: features x cells in compressed columns, which are cells x features in
//! compressed rows. Format: <https://www.10xgenomics.com/support/software/cell-ranger/latest/analysis/outputs/cr-outputs-h5-matrices>.
use std::path::Path;

use hdf5::Group;

use super::features::{self, Chosen, Described};
use super::h5ad::matrix::{Blocks, Major, Matrix, Sparse};
use super::h5ad::open_hdf5;
use super::h5ad::quiet::quietly;
use super::h5ad::values::{Source, Values};
use super::samples::Samples;
use super::{refuse, refuse_names, GuideFile, ReadOptions};
use crate::Result;

pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    const KIND: &str = "a 10x .h5";
    refuse(options.layer, "layer", source, KIND, "it has one matrix. Leave it out")?;
    refuse(
        options.modality,
        "modality",
        source,
        KIND,
        "leave it out, and choose among types of features with `feature_type`",
    )?;
    refuse(options.batch, "batch", source, KIND, "it has no table of cells. Give the batch of each cell itself")?;
    refuse(options.orientation, "orientation", source, KIND, "its rows are always cells. Leave it out")?;
    refuse_names(options, source, KIND)?;
    quietly(|| {
        let file = open_hdf5(source)?;
        let group = file.group("matrix").map_err(|error| source.damaged("matrix", error))?;
        let features = Features::open(source, &group, "matrix", options)?;
        let cell_names = Values::open(source, &group, "matrix", "barcodes")?.strings()?;
        features::check_names(source, &cell_names, "cell", "matrix/barcodes")?;
        let matrix = Matrix { source, file: &file, what: "matrix", cells: &cell_names, guides: &features.names };
        let shape = Values::open(source, &group, "matrix", "shape")?.integers(|_, n| Ok(n as usize))?;
        if shape != [features.names.len(), cell_names.len()] {
            let (n, m) = (features.names.len(), cell_names.len());
            return Err(source.format_in(format!(
                "matrix is damaged: its shape is {shape:?}, but there are {n} features and {m} barcodes.\n  Get the file again."
            )));
        }
        let blocks =
            Blocks::InFile(Sparse::of(&matrix, &group, Major::Cells, (cell_names.len(), features.names.len()))?);
        let rows = matrix.read_some(&blocks, &features.chosen.places)?;
        Ok(GuideFile {
            indptr: rows.indptr,
            guides: rows.guides,
            counts: rows.counts,
            guide_names: features.guides()?,
            facts: features.facts,
            choices: features.chosen.choices,
            cell_names,
            batch: None,
            samples: Samples::default(),
        })
    })
}

/// The group `features` of the matrix, and of molecule_info.h5.
pub(super) struct Features<'a> {
    source: Source<'a>,
    names: Vec<String>,
    pub chosen: Chosen,
    pub facts: Vec<(String, Vec<Option<String>>)>,
}

impl<'a> Features<'a> {
    pub fn open(source: Source<'a>, parent: &Group, what: &str, options: &ReadOptions) -> Result<Self> {
        let what = format!("{what}/features");
        let what = what.trim_start_matches('/');
        let group = parent.group("features").map_err(|error| source.damaged(what, error))?;
        let column = |name: &str| Values::open(source, &group, what, name)?.strings();
        let names = column("id")?;
        let types = column("feature_type")?;
        if types.len() != names.len() {
            let (n, m) = (names.len(), types.len());
            return Err(
                source.format_in(format!("{what} is damaged: it has {n} ids and {m} types.\n  Get the file again."))
            );
        }
        let described = Described { names: &names, also: &[], types: Some(&types) };
        let chosen = features::choose(source, described, options.feature_type, options.guides)?;
        let mut facts = vec![];
        for (name, stored) in [("target", "target_gene_name"), ("sequence", "sequence")] {
            if !group.link_exists(stored) {
                continue;
            }
            let values: Vec<Option<String>> = column(stored)?.into_iter().map(Some).collect();
            if values.len() == names.len() {
                facts.extend(features::fact(name, chosen.of(&values)));
            }
        }
        Ok(Features { source, names, chosen, facts })
    }

    /// The names of the guides.
    pub fn guides(&self) -> Result<Vec<String>> {
        let guides = self.chosen.of(&self.names);
        features::check_names(self.source, &guides, "guide", "features/id")?;
        Ok(guides)
    }
}

/// What to say of a file of Cell Ranger 1 or 2, with a group for each genome; none if it is no such file.
pub(super) fn of_version_2(file: &Group) -> Option<String> {
    let genomes: Vec<String> = file.member_names().ok()?;
    let is_genome =
        |name: &String| file.group(name).is_ok_and(|group| group.link_exists("genes") && group.link_exists("barcodes"));
    let genome = genomes.iter().find(|name| is_genome(name))?;
    Some(format!(
        "is a 10x .h5 of Cell Ranger 2, with genes of \"{genome}\" only: guides are in the files of Cell Ranger 3 and later."
    ))
}
