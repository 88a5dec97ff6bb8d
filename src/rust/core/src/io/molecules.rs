//! molecule_info.h5 of Cell Ranger 3 and later: one row for each UMI, counted here for each cell and guide.
//! Format: <https://www.10xgenomics.com/support/software/cell-ranger/latest/analysis/outputs/cr-outputs-molecule-info>.
use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::features;
use super::h5ad::open_hdf5;
use super::h5ad::quiet::quietly;
use super::h5ad::values::{Source, Values};
use super::samples::Samples;
use super::tenx::Features;
use super::{refuse, refuse_names, GuideFile, ReadOptions};
use crate::{Error, Result};

/// Rows that are read at once.
const ROWS: usize = 1 << 22;

/// A barcode of a GEM group: the group in the upper half.
type Cell = u64;

pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    const KIND: &str = "a molecule_info.h5";
    refuse(options.layer, "layer", source, KIND, "it has no matrix. Leave it out")?;
    refuse(
        options.modality,
        "modality",
        source,
        KIND,
        "leave it out, and choose among types of features with `feature_type`",
    )?;
    refuse(options.batch, "batch", source, KIND, "it has no table of cells. Give the batch of each cell itself")?;
    refuse(options.orientation, "orientation", source, KIND, "it has no matrix. Leave it out")?;
    refuse_names(options, source, KIND)?;
    quietly(|| read_open(source, options))
}

fn read_open(source: Source, options: &ReadOptions) -> Result<GuideFile> {
    let file = open_hdf5(source)?;
    if !file.link_exists("features") {
        return Err(source.file(
            "is a molecule_info.h5 of Cell Ranger 2, which knows genes only: guides are in the files of Cell Ranger 3 and later.",
        ));
    }
    let features = Features::open(source, &file, "", options)?;
    let barcodes = Values::open(source, &file, "", "barcodes")?.strings()?;
    let column = |name: &str| Values::open(source, &file, "", name);
    let (barcode_idx, feature_idx) = (column("barcode_idx")?, column("feature_idx")?);
    let (gem_group, library_idx) = (column("gem_group")?, column("library_idx")?);
    let n = barcode_idx.len()?;
    for other in [&feature_idx, &gem_group, &library_idx] {
        if other.len()? != n {
            return Err(source.format_in(format!(
                "{} has {} values and barcode_idx {n}.\n  The file may be damaged. Get it again.",
                other.what,
                other.len()?
            )));
        }
    }

    let mut molecules: Vec<(Cell, i32)> = vec![];
    let mut group_of: BTreeMap<u32, u32> = BTreeMap::new();
    for start in (0..n).step_by(ROWS) {
        let range = start..n.min(start + ROWS);
        let read = |values: &Values, below: usize| {
            values.convert(
                range.clone(),
                |value| (value >= 0.0 && value < below as f64).then_some(value as u32),
                |position, value| {
                    source.format_in(format!(
                        "value {} of {} is {value}, but must be from 0 to {}.\n  The file may be damaged. Get it again.",
                        start + position + 1,
                        values.what,
                        below.saturating_sub(1)
                    ))
                },
            )
        };
        let barcode = read(&barcode_idx, barcodes.len())?;
        let feature = read(&feature_idx, features.chosen.places.len())?;
        let group = read(&gem_group, 1 << 16)?;
        let library = read(&library_idx, 1 << 16)?;
        let pairs = library.iter().zip(&group);
        let mut last = None;
        for pair in pairs {
            // Libraries come in long runs.
            if last != Some(pair) {
                group_of.insert(*pair.0, *pair.1);
                last = Some(pair);
            }
        }
        let places = &features.chosen.places;
        molecules.par_extend((0..barcode.len()).into_par_iter().filter_map(|at| {
            let guide = places[feature[at] as usize]?;
            Some(((u64::from(group[at]) << 32) | u64::from(barcode[at]), guide))
        }));
    }
    molecules.par_sort_unstable();

    let mut choices: Vec<String> = features.chosen.choices.clone();
    let called = called_cells(source, &file, barcodes.len(), &group_of)?;
    let cells = match called {
        Some(cells) => {
            choices
                .push(format!("Taking the {} cells that Cell Ranger called (barcode_info/pass_filter).", cells.len()));
            cells
        }
        None => {
            let mut cells: Vec<Cell> = molecules.iter().map(|&(cell, _)| cell).collect();
            cells.dedup();
            choices.push(format!(
                "Taking all {} barcodes with a UMI of a guide as cells, as the file does not say which are cells.",
                cells.len()
            ));
            cells
        }
    };
    let cell_names: Vec<String> =
        cells.iter().map(|cell| format!("{}-{}", barcodes[(cell & 0xffff_ffff) as usize], cell >> 32)).collect();
    features::check_names(source, &cell_names, "cell", "barcodes")?;
    let (indptr, guides, counts) = count(&molecules, &cells).ok_or_else(|| {
        Error::Counts(format!("The file \"{}\" has more counts than kaichi can hold. Split it.", source.0.display()))
    })?;
    Ok(GuideFile {
        indptr,
        guides,
        counts,
        cell_names,
        guide_names: features.guides()?,
        batch: None,
        samples: Samples::default(),
        facts: features.facts,
        choices,
    })
}

/// The cells of barcode_info/pass_filter, whose rows are barcode, library and genome; none where nothing is said.
fn called_cells(
    source: Source,
    file: &hdf5::File,
    n_barcodes: usize,
    group_of: &BTreeMap<u32, u32>,
) -> Result<Option<Vec<Cell>>> {
    let Ok(info) = file.group("barcode_info") else { return Ok(None) };
    if !info.link_exists("pass_filter") {
        return Ok(None);
    }
    let filter = Values::open(source, &info, "barcode_info", "pass_filter")?;
    if filter.shape.len() != 2 || filter.shape[1] < 2 || filter.shape[0] == 0 {
        return Ok(None);
    }
    let mut rows = vec![[0.0; 2]; filter.shape[0]];
    filter.each_in_matrix(|row, column, value| {
        if column < 2 {
            rows[row][column] = value;
        }
        Ok(())
    })?;
    let mut cells = vec![];
    for [barcode, library] in rows {
        // A library without any molecule is in no row of the file, so its GEM group is not known; nor has it counts.
        let Some(&group) = group_of.get(&(library as u32)) else { continue };
        // Not a number is no barcode, either.
        if !(0.0..n_barcodes as f64).contains(&barcode) {
            return Err(source.format_in(format!(
                "barcode_info/pass_filter has barcode {barcode}, but there are {n_barcodes}, counted from 0.\n  The file may be \
                 damaged. Get it again."
            )));
        }
        cells.push((u64::from(group) << 32) | barcode as u64);
    }
    // Once for each genome.
    cells.par_sort_unstable();
    cells.dedup();
    Ok((!cells.is_empty()).then_some(cells))
}

/// Sorted molecules -> the rows of the cells, which are sorted, too; none if they are too many.
fn count(molecules: &[(Cell, i32)], cells: &[Cell]) -> Option<(Vec<i32>, Vec<i32>, Vec<f64>)> {
    let (mut indptr, mut guides, mut counts) = (vec![0], vec![], vec![]);
    let mut rest = molecules;
    for &cell in cells {
        rest = &rest[rest.partition_point(|&(other, _)| other < cell)..];
        let n = rest.iter().take_while(|&&(other, _)| other == cell).count();
        for same in rest[..n].chunk_by(|a, b| a == b) {
            guides.push(same[0].1);
            counts.push(same.len() as f64);
        }
        rest = &rest[n..];
        indptr.push(i32::try_from(counts.len()).ok()?);
    }
    Some((indptr, guides, counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn molecules_of_other_barcodes_are_left_out() {
        let molecules = [(1, 0), (1, 0), (1, 2), (2, 1), (3, 0), (1 << 32, 1), (1 << 32, 1), (1 << 32, 1)];
        assert_eq!(
            count(&molecules, &[0, 1, 3, 1 << 32]),
            Some((vec![0, 0, 2, 3, 4], vec![0, 2, 0, 1], vec![2.0, 1.0, 1.0, 3.0]))
        );
    }
}
