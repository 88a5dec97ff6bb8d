//! X or a layer, sparse or dense, to sorted rows without explicit zeros.
use std::ops::Range;

use hdf5::{Group, LocationType};
use rayon::prelude::*;
use sprs::CsMatI;

use super::values::{attribute, encoding, quoted, Source, Values};
use super::{has_raw, layer_names, too_many, MOST};
use crate::counts::is_count;
use crate::{Error, Result};

#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub source: Source<'a>,
    /// The AnnData: a file, or a modality.
    pub file: &'a Group,
    /// `X` or `layers/<layer>`.
    pub what: &'a str,
    /// Only for errors when a block is read, and then those of the block.
    pub cells: &'a [String],
    pub guides: &'a [String],
}

/// Compressed rows, one per cell.
pub struct Rows {
    pub indptr: Vec<i32>,
    pub guides: Vec<i32>,
    pub counts: Vec<f64>,
}

/// The axis that is compressed.
#[derive(Clone, Copy, PartialEq)]
pub enum Major {
    Cells,
    Guides,
}

/// The parts of a sparse matrix, whose lengths agree.
pub struct Sparse<'a> {
    pub major: Major,
    outer: usize,
    inner: usize,
    indptr: Values<'a>,
    indices: Values<'a>,
    pub data: Values<'a>,
    pub stored: usize,
}

impl<'a> Sparse<'a> {
    /// `shape` is the number of cells and guides.
    pub fn open(matrix: &Matrix<'a>, shape: (usize, usize)) -> Result<Self> {
        let source = matrix.source;
        let group = matrix.file.group(matrix.what).map_err(|error| source.damaged(matrix.what, error))?;
        let major = matrix.major(&group)?;
        matrix.check_shape(&matrix.stated_shape(&group)?, shape)?;
        Self::of(matrix, &group, major, shape)
    }

    /// The parts in the group, compressed along that axis.
    pub fn of(matrix: &Matrix<'a>, group: &Group, major: Major, shape: (usize, usize)) -> Result<Self> {
        let source = matrix.source;
        let (outer, inner, axis) = match major {
            Major::Cells => (shape.0, shape.1, "cells"),
            Major::Guides => (shape.1, shape.0, "guides"),
        };
        let part = |name| Values::open(source, group, matrix.what, name);
        let (data, indices, indptr) = (part("data")?, part("indices")?, part("indptr")?);
        let stored = data.len()?;
        if indices.len()? != stored {
            return Err(matrix.damaged(format!("data has {stored} values and indices {}", indices.len()?)));
        }
        if indptr.len()? != outer + 1 {
            return Err(matrix.damaged(format!(
                "indptr has {} values for {outer} {axis}, which need {}",
                indptr.len()?,
                outer + 1
            )));
        }
        if indptr.number()?.is_float() {
            return Err(indptr.wrong_type("integers"));
        }
        if indices.number()?.is_float() {
            return Err(indices.wrong_type("integers"));
        }
        Ok(Sparse { major, outer, inner, indptr, indices, data, stored })
    }

    /// Where the rows of the range start, and the last of them ends.
    pub fn starts(&self, matrix: &Matrix, range: Range<usize>) -> Result<Vec<usize>> {
        let stored = self.stored;
        let in_range = |start: f64| (start >= 0.0 && start <= stored as f64).then_some(start as usize);
        let refused = |_, start| {
            matrix.damaged(match start < 0.0 {
                true => format!("indptr falls to {start}"),
                false => format!("indptr reaches {start}, beyond the {stored} stored values"),
            })
        };
        let starts = self.indptr.convert(range.start..range.end + 1, in_range, refused)?;
        if range.start == 0 && starts[0] != 0 {
            return Err(matrix.damaged(format!("indptr starts at {}, not at 0", starts[0])));
        }
        if let Some(at) = starts.windows(2).position(|pair| pair[1] < pair[0]) {
            let (before, start, position) = (starts[at], starts[at + 1], range.start + at + 2);
            return Err(matrix.damaged(format!("indptr falls from {before} to {start} at position {position}")));
        }
        let end = starts[starts.len() - 1];
        if range.end == self.outer && end != stored {
            return Err(matrix.damaged(format!("indptr ends at {end}, but {stored} values are stored")));
        }
        Ok(starts)
    }

    /// The rows with these starts, sorted and without zeros; of columns, `guides` are the cells.
    pub fn rows(&self, matrix: &Matrix, starts: &[usize]) -> Result<Rows> {
        let range = starts[0]..starts[starts.len() - 1];
        let indptr: Vec<usize> = starts.iter().map(|start| start - range.start).collect();
        let outer_of = |position| indptr.partition_point(|&start| start <= position) - 1;
        let inner = self.inner;
        let index = |index: f64| (index >= 0.0 && index < inner as f64).then_some(index as i32);
        let indices = self.indices.convert(range.clone(), index, |position, index| {
            let (outer, inner_axis) = match self.major {
                Major::Cells => (format!("cell \"{}\"", matrix.cell(outer_of(position))), "guides"),
                Major::Guides => (format!("guide \"{}\"", matrix.guides[outer_of(position)]), "cells"),
            };
            matrix.damaged(format!("{outer} has index {index}, but there are {inner} {inner_axis}, counted from 0"))
        })?;
        let data = self.data.convert(
            range,
            |value| is_count(value).then_some(value),
            |position, value| match self.major {
                Major::Cells => matrix.no_count(value, outer_of(position), indices[position] as usize),
                Major::Guides => matrix.no_count(value, indices[position] as usize, outer_of(position)),
            },
        )?;
        matrix.finish(self.major, indptr, indices, data)
    }
}

/// Most stored values of a block, but for a cell alone.
const BLOCK: usize = 1 << 20;

/// The rows of a matrix, a block of cells at a time: from the file where it is compressed by cells, else from memory.
pub enum Blocks<'a> {
    InFile(Sparse<'a>),
    Whole(Rows),
}

impl<'a> Blocks<'a> {
    /// The names of the cells are asked for where the matrix is read as a whole.
    pub fn open(matrix: Matrix<'a>, n_cells: usize, cells: impl FnOnce() -> Result<Vec<String>>) -> Result<Self> {
        if let Ok(LocationType::Group) = matrix.file.loc_type_by_name(matrix.what) {
            let sparse = Sparse::open(&matrix, (n_cells, matrix.guides.len()))?;
            if sparse.major == Major::Cells {
                return Ok(Blocks::InFile(sparse));
            }
        }
        let cells = cells()?;
        Matrix { cells: &cells, ..matrix }.read().map(Blocks::Whole)
    }

    /// The next block within the range of cells, from its first on: the cells it has, and their rows.
    pub fn next(&self, matrix: &Matrix, range: Range<usize>) -> Result<(Range<usize>, Rows)> {
        match self {
            Blocks::InFile(sparse) => {
                let mut starts = sparse.starts(matrix, range.clone())?;
                let most = starts[0] + BLOCK;
                // At least one cell, whose start and end are the first two.
                starts.truncate(starts.partition_point(|&start| start <= most).max(2));
                let rows = sparse.rows(matrix, &starts)?;
                Ok((range.start..range.start + starts.len() - 1, rows))
            }
            Blocks::Whole(rows) => {
                let starts = &rows.indptr[range.start..=range.end];
                let (from, to) = (starts[0] as usize, starts[starts.len() - 1] as usize);
                let rows = Rows {
                    indptr: starts.iter().map(|start| start - starts[0]).collect(),
                    guides: rows.guides[from..to].to_vec(),
                    counts: rows.counts[from..to].to_vec(),
                };
                Ok((range, rows))
            }
        }
    }
}

/// Cells whose starts are read at once.
const CELLS: usize = 1 << 16;

impl Rows {
    /// The counts of these features only, under their new places, which increase with the old.
    fn append(&mut self, rows: &Rows, places: &[Option<i32>]) {
        for bounds in rows.indptr.windows(2) {
            for at in bounds[0] as usize..bounds[1] as usize {
                if let Some(place) = places[rows.guides[at] as usize] {
                    self.guides.push(place);
                    self.counts.push(rows.counts[at]);
                }
            }
            self.indptr.push(self.counts.len() as i32);
        }
    }
}

impl<'a> Matrix<'a> {
    /// The rows of the features with a place, a block of cells in memory at a time.
    pub fn read_some(&self, blocks: &Blocks, places: &[Option<i32>]) -> Result<Rows> {
        let mut rows = Rows { indptr: vec![0], guides: vec![], counts: vec![] };
        let n = self.cells.len();
        let mut at = 0;
        while at < n {
            let (range, block) = blocks.next(&Matrix { cells: &self.cells[at..], ..*self }, at..n.min(at + CELLS))?;
            rows.append(&block, places);
            if rows.counts.len() > MOST {
                return Err(too_many(self.source, "stored counts", rows.counts.len()));
            }
            at = range.end;
        }
        Ok(rows)
    }

    /// All cells in blocks.
    pub fn blocks(&self) -> Result<Blocks<'a>> {
        Blocks::open(*self, self.cells.len(), || Ok(self.cells.to_vec()))
    }

    pub fn read(&self) -> Result<Rows> {
        match self.file.loc_type_by_name(self.what) {
            Ok(LocationType::Group) => self.read_sparse(),
            Ok(LocationType::Dataset) => self.read_dense(),
            _ => Err(self.source.format_in(format!("{} is neither a matrix nor a group.", self.what))),
        }
    }

    fn read_dense(&self) -> Result<Rows> {
        let values = Values::open(self.source, self.file, "", self.what)?;
        if let Some(encoding) = encoding(&values.dataset) {
            if !encoding.is(self.source, self.what, "array", &["0.2.0"])? {
                return Err(self.unknown_encoding(&encoding.kind));
            }
        }
        self.check_shape(&values.shape, (self.cells.len(), self.guides.len()))?;
        let mut rows =
            Rows { indptr: Vec::with_capacity(self.cells.len() + 1), guides: Vec::new(), counts: Vec::new() };
        rows.indptr.push(0);
        let last = self.guides.len() - 1;
        values.each_in_matrix(|cell, guide, value| {
            if value != 0.0 {
                if !is_count(value) {
                    return Err(self.no_count(value, cell, guide));
                }
                rows.counts.push(value);
                rows.guides.push(guide as i32);
            }
            if guide == last {
                if rows.counts.len() > MOST {
                    return Err(too_many(self.source, "stored counts", rows.counts.len()));
                }
                rows.indptr.push(rows.counts.len() as i32);
            }
            Ok(())
        })?;
        Ok(rows)
    }

    fn read_sparse(&self) -> Result<Rows> {
        let sparse = Sparse::open(self, (self.cells.len(), self.guides.len()))?;
        let indptr = sparse.starts(self, 0..sparse.outer)?;
        let rows = sparse.rows(self, &indptr)?;
        match sparse.major {
            Major::Cells => Ok(rows),
            Major::Guides => {
                let columns = CsMatI::try_new_csc((sparse.inner, sparse.outer), rows.indptr, rows.guides, rows.counts)
                    .map_err(|(_, _, _, error)| Error::Internal(error.to_string()))?;
                let (indptr, guides, counts) = columns.to_csr().into_raw_storage();
                Ok(Rows { indptr, guides, counts })
            }
        }
    }

    fn major(&self, group: &Group) -> Result<Major> {
        let (source, what) = (self.source, self.what);
        if let Some(encoding) = encoding(group) {
            if encoding.is(source, what, "csr_matrix", &["0.1.0"])? {
                return Ok(Major::Cells);
            }
            if encoding.is(source, what, "csc_matrix", &["0.1.0"])? {
                return Ok(Major::Guides);
            }
            return Err(self.unknown_encoding(&encoding.kind));
        }
        // Before encoding-type, anndata wrote h5sparse_format.
        match attribute(group, "h5sparse_format").as_deref() {
            Some("csr") => Ok(Major::Cells),
            Some("csc") => Ok(Major::Guides),
            other => Err(self.unknown_encoding(other.unwrap_or(""))),
        }
    }

    fn stated_shape(&self, group: &Group) -> Result<Vec<usize>> {
        let shape = group.attr("shape").or_else(|_| group.attr("h5sparse_shape"));
        let shape = shape.and_then(|shape| shape.read_raw::<i64>());
        let shape = shape.map_err(|_| self.damaged("the attribute shape is missing".to_owned()))?;
        // A negative length is no length of obs or var either, and is named as such.
        Ok(shape.into_iter().map(|n| usize::try_from(n).unwrap_or(usize::MAX)).collect())
    }

    /// The name of a cell.
    fn cell(&self, at: usize) -> &str {
        self.cells.get(at).map_or("", String::as_str)
    }

    fn check_shape(&self, shape: &[usize], (cells, guides): (usize, usize)) -> Result<()> {
        if shape == [cells, guides] {
            return Ok(());
        }
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        Err(self
            .damaged(format!("its shape is {}, but obs has {cells} cells and var {guides} guides", shape.join(" x "))))
    }

    /// Sorts each row, refuses an entry that stands twice, drops explicit zeros. Of columns, `guides` are the cells.
    fn finish(&self, major: Major, indptr: Vec<usize>, mut guides: Vec<i32>, mut counts: Vec<f64>) -> Result<Rows> {
        let is_finished = |bounds: &[usize]| {
            let row = bounds[0]..bounds[1];
            guides[row.clone()].windows(2).all(|pair| pair[0] < pair[1]) && !counts[row].contains(&0.0)
        };
        if indptr.par_windows(2).with_min_len(1 << 13).all(is_finished) {
            return Ok(Rows { indptr: indptr.into_iter().map(|start| start as i32).collect(), guides, counts });
        }
        let mut starts = Vec::with_capacity(indptr.len());
        starts.push(0);
        let mut kept = 0;
        let mut unsorted: Vec<(i32, f64)> = Vec::new();
        for (outer, bounds) in indptr.windows(2).enumerate() {
            let row = bounds[0]..bounds[1];
            if !guides[row.clone()].is_sorted() {
                unsorted.clear();
                unsorted.extend(row.clone().map(|at| (guides[at], counts[at])));
                unsorted.sort_unstable_by_key(|&(guide, _)| guide);
                for (at, &(guide, count)) in row.clone().zip(&unsorted) {
                    (guides[at], counts[at]) = (guide, count);
                }
            }
            if let Some(twice) = guides[row.clone()].windows(2).find(|pair| pair[0] == pair[1]) {
                let (cell, guide) = match major {
                    Major::Cells => (outer, twice[0] as usize),
                    Major::Guides => (twice[0] as usize, outer),
                };
                return Err(self.source.format_in(format!(
                    "{} stores guide \"{}\" more than once in cell \"{}\".\n  Sum such entries before writing \
                     (sum_duplicates() of scipy).",
                    self.what,
                    self.guides[guide],
                    self.cell(cell)
                )));
            }
            for at in row {
                if counts[at] != 0.0 {
                    (guides[kept], counts[kept]) = (guides[at], counts[at]);
                    kept += 1;
                }
            }
            starts.push(kept as i32);
        }
        guides.truncate(kept);
        counts.truncate(kept);
        Ok(Rows { indptr: starts, guides, counts })
    }

    fn no_count(&self, value: f64, cell: usize, guide: usize) -> Error {
        let reason = match value {
            v if v.is_nan() => "NaN".to_owned(),
            v if v.is_infinite() => "infinite".to_owned(),
            v if v < 0.0 => format!("{v}, which is negative"),
            v if v > MOST as f64 => format!("{v}, which is more than 2147483647"),
            v => format!("{v}, which is not a whole number"),
        };
        self.source.counts(format!(
            "the count of guide \"{}\" in cell \"{}\" in {} is {reason}.\n  kaichi needs raw UMI \
             counts: whole numbers from 0 to 2147483647. {}",
            self.guides[guide],
            self.cell(cell),
            self.what,
            self.where_else()
        ))
    }

    /// Where the raw counts may be instead.
    fn where_else(&self) -> String {
        let mut layers = layer_names(self.file);
        layers.retain(|layer| format!("layers/{layer}") != self.what);
        let raw = layers.iter().find(|layer| {
            let name = layer.to_lowercase();
            name == "raw" || name.contains("count") || name.contains("umi")
        });
        match raw {
            Some(layer) => format!("If these are normalised values, try `layer = \"{layer}\"`."),
            None if self.what != "raw/X" && has_raw(self.file) => {
                "If these are normalised values, the counts may be in raw: try `layer = \"raw\"`.".to_owned()
            }
            None if !layers.is_empty() => format!("Its other layers are {}.", quoted(&layers)),
            None => "The file has no other layer that could hold them.".to_owned(),
        }
    }

    fn unknown_encoding(&self, kind: &str) -> Error {
        let stated =
            if kind.is_empty() { "states no encoding".to_owned() } else { format!("is encoded as \"{kind}\"") };
        self.source.format_in(format!(
            "{} {stated}; kaichi 0.1 reads csr_matrix, csc_matrix and array.\n  Write the file again with anndata.",
            self.what
        ))
    }

    fn damaged(&self, text: String) -> Error {
        self.source.format_in(format!("{} is damaged: {text}.\n  Write the file again.", self.what))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;

    fn names(what: &str, n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("{what} {i}")).collect()
    }

    /// Three cells x two guides, by guide.
    fn read_csc(name: &str, data: &[i64], cells: &[i64], starts: &[i64]) -> Result<Rows> {
        let path = std::env::temp_dir().join(format!("kaichi-{}-{name}.h5", std::process::id()));
        let rows = quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            let group = file.create_group("X").unwrap();
            for (name, values) in [("data", data), ("indices", cells), ("indptr", starts)] {
                group.new_dataset_builder().with_data(values).create(name).unwrap();
            }
            let kind = "csc".parse::<hdf5::types::VarLenUnicode>().unwrap();
            group.new_attr_builder().with_data(&[kind]).create("h5sparse_format").unwrap();
            group.new_attr_builder().with_data(&[3i64, 2]).create("h5sparse_shape").unwrap();
            let (cells, guides) = (names("cell", 3), names("guide", 2));
            Matrix { source: Source(&path), file: &file, what: "X", cells: &cells, guides: &guides }.read()
        });
        std::fs::remove_file(&path).unwrap();
        rows
    }

    #[test]
    fn columns_become_sorted_rows_without_zeros() {
        let rows = read_csc("csc", &[4, 0, 7, 9], &[2, 0, 2, 1], &[0, 2, 4]).unwrap();
        assert_eq!(rows.indptr, [0, 0, 1, 3]);
        assert_eq!(rows.guides, [1, 0, 1]);
        assert_eq!(rows.counts, [9.0, 4.0, 7.0]);
    }

    #[test]
    fn an_entry_stored_twice_names_cell_and_guide() {
        let error = read_csc("twice", &[4, 1, 7], &[2, 1, 1], &[0, 1, 3]).err().unwrap().to_string();
        assert!(error.contains("guide \"guide 2\" more than once in cell \"cell 2\""), "{error}");
    }

    #[test]
    fn a_wrong_entry_of_columns_names_guide_and_cell() {
        let error = read_csc("index", &[4, 1], &[0, 3], &[0, 1, 2]).err().unwrap().to_string();
        assert!(error.contains("guide \"guide 2\" has index 3, but there are 3 cells"), "{error}");
        let error = read_csc("count", &[4, -1], &[0, 1], &[0, 1, 2]).err().unwrap().to_string();
        assert!(error.contains("guide \"guide 2\" in cell \"cell 2\" in X is -1"), "{error}");
    }
}
