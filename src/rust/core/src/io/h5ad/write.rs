//! Writer of .h5ad, block by block: counts, calls and scores as compressed rows, obs and var as tables.
//!
//! A file is made under a temporary name in its folder and gets its own when it is whole, so that no error, Ctrl-C or kill
//! leaves a broken one. Encodings are those of anndata 0.8 and later; indices have 32 bits, as kaichi 0.2.0 reads them.
use std::cell::Cell;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use hdf5::types::VarLenUnicode;
use hdf5::{Dataset, Group, H5Type, Location};
use hdf5_sys::h5o::H5Ocopy;
use hdf5_sys::h5p::H5P_DEFAULT;
use ndarray::s;

use super::frame::{Frame, OURS};
use super::quiet::quietly;
use super::values::{attributes, Source};
use crate::fit::Column;
use crate::{Error, Result};

type Written<T> = hdf5::Result<T>;

/// The most values of a chunk, in datasets that grow.
const CHUNK: usize = 1 << 16;

/// Bytes for what HDF5 adds to the data: headers, heaps, indices of chunks.
const MARGIN: u64 = 1 << 20;

/// A file that has not its name yet.
pub struct Draft {
    path: PathBuf,
    draft: PathBuf,
    /// Where the bytes end that the disk holds for the draft, see [`Draft::reserve`].
    reserved: Cell<u64>,
    overwrite: bool,
    done: bool,
}

impl Draft {
    /// `input` is what the content comes from, if that is a file.
    pub fn new(path: &Path, input: Option<&Path>, overwrite: bool) -> Result<Self> {
        let source = Source(path);
        let same = |input: &Path| matches!((path.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if input.is_some_and(same) {
            return Err(Error::Argument(format!(
                "The output \"{}\" is the input itself. Give the output another name.",
                path.display()
            )));
        }
        check_free(path, overwrite)?;
        let (Some(name), folder) = (path.file_name(), path.parent()) else {
            return Err(source.file("has no name. Give the name of a file."));
        };
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(source.file("cannot be written: its folder does not exist. Make the folder first."));
        }
        for attempt in 0.. {
            let name = format!(".{}.{}-{attempt}.part", name.to_string_lossy(), std::process::id());
            let draft = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&draft) {
                Ok(_) => {
                    return Ok(Draft { path: path.to_owned(), draft, reserved: Cell::new(0), overwrite, done: false })
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(source.file(format!(
                        "cannot be written: {error}.\n  Give a name in a folder that you may write to."
                    )))
                }
            }
        }
        Err(Error::Internal("there is no free name for the output".into()))
    }

    /// Opens the file for writing. `userblock` is 0, or the bytes to leave free at its head.
    pub fn open(&self, userblock: u64) -> Result<hdf5::File> {
        let mut builder = hdf5::FileBuilder::new();
        // The format that HDF5 2 writes unasked has the second in which each group was made: equal calls were unequal files.
        builder.with_fapl(|p| p.libver_earliest()).with_fcpl(|p| p.userblock(userblock));
        let made = builder.create(&self.draft);
        let file = made.map_err(|error| self.failed(error))?;
        self.reserve(&file, 0)?;
        Ok(file)
    }

    /// Takes the room on the disk that `more` bytes of the file need, and what HDF5 has in memory of it. A write that fails while
    /// HDF5 writes out its memory takes the process down, at once or at its end, so HDF5 must never find the disk full.
    pub fn reserve(&self, file: &hdf5::File, more: u64) -> Result<()> {
        let (from, to) = (self.reserved.get().max(file.size()), file.size() + more + MARGIN);
        if from < to {
            let taken =
                OpenOptions::new().write(true).open(&self.draft).and_then(|file| allocate(&file, from, to - from));
            taken.map_err(|error| Source(&self.path).file(format!("cannot be written: {error}.")))?;
            self.reserved.set(to);
        }
        Ok(())
    }

    pub fn failed(&self, error: hdf5::Error) -> Error {
        Source(&self.path)
            .file(format!("cannot be written: {error}.\n  The disk may be full, or the folder read-only."))
    }

    /// Closes the file, with an error where what was written does not reach the disk; closing by itself says nothing.
    pub fn close(&self, file: hdf5::File) -> Result<()> {
        file.flush().map_err(|error| self.failed(error))?;
        let end = file.size();
        file.close().map_err(|error| self.failed(error))?;
        let cut = OpenOptions::new().write(true).open(&self.draft).and_then(|file| {
            let end = file.metadata()?.len().min(end);
            file.set_len(end)
        });
        cut.map_err(|error| Source(&self.path).file(format!("cannot be written: {error}.")))
    }

    /// Writes the head of a closed file with a userblock.
    pub fn write_head(&self, text: &str) -> Result<()> {
        let written =
            OpenOptions::new().write(true).open(&self.draft).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Source(&self.path).file(format!("cannot be written: {error}.")))
    }

    /// Gives the file its name. All handles on it must be closed.
    pub fn finish(mut self) -> Result<()> {
        check_free(&self.path, self.overwrite)?;
        let synced = OpenOptions::new().write(true).open(&self.draft).and_then(|file| file.sync_all());
        let moved = synced.and_then(|()| {
            // A link never replaces, so that of two processes which write the same file only one does; a renamed file would.
            if !self.overwrite {
                match std::fs::hard_link(&self.draft, &self.path) {
                    Ok(()) => return std::fs::remove_file(&self.draft),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
                    // This file system has no hard links.
                    Err(_) => {}
                }
            }
            std::fs::rename(&self.draft, &self.path)
        });
        if let Err(error) = moved {
            check_free(&self.path, self.overwrite)?;
            return Err(Source(&self.path).file(format!("cannot be written: {error}.")));
        }
        self.done = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is left under its temporary name.
            let _ = std::fs::remove_file(&self.draft);
        }
    }
}

/// Takes room on the disk for a part of a file that nothing was written to.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn allocate(file: &std::fs::File, from: u64, n: u64) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let (Ok(from), Ok(n)) = (from.try_into(), n.try_into()) else { return Err(ErrorKind::FileTooLarge.into()) };
    loop {
        // SAFETY: the file is open during the call, which touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), from, n) } {
            0 => return Ok(()),
            // A signal, Ctrl-C among them: who it is for decides what follows.
            libc::EINTR => {}
            error => return Err(std::io::Error::from_raw_os_error(error)),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &std::fs::File, from: u64, n: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::Start(from))?;
    std::io::copy(&mut std::io::repeat(0).take(n), &mut file).map(drop)
}

fn check_free(path: &Path, overwrite: bool) -> Result<()> {
    let source = Source(path);
    if path.is_dir() {
        return Err(source.file("cannot be written: it is a folder. Give the name of a file."));
    }
    if !overwrite && path.exists() {
        return Err(source.file("exists already. Give another name, or `overwrite = TRUE` to replace it."));
    }
    Ok(())
}

/// The bytes of a file.
pub fn file_size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

pub fn text(value: &str) -> Written<VarLenUnicode> {
    value.parse().map_err(|_| hdf5::Error::from(format!("the text \"{}\" holds a NUL", value.replace('\0', "\\0"))))
}

fn texts<S: AsRef<str>>(values: &[S]) -> Written<Vec<VarLenUnicode>> {
    values.iter().map(|value| text(value.as_ref())).collect()
}

pub fn set_text(object: &Location, name: &str, value: &str) -> Written<()> {
    object.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text(value)?)
}

pub fn set_texts(object: &Location, name: &str, values: &[String]) -> Written<()> {
    object.new_attr_builder().with_data(&texts(values)?).create(name).map(drop)
}

/// Says what an object is.
pub fn encode(object: &Location, kind: &str, version: &str) -> Written<()> {
    set_text(object, "encoding-type", kind)?;
    set_text(object, "encoding-version", version)
}

pub fn group(parent: &Group, name: &str, kind: &str, version: &str) -> Written<Group> {
    let group = parent.create_group(name)?;
    encode(&group, kind, version)?;
    Ok(group)
}

pub fn dict(parent: &Group, name: &str) -> Written<Group> {
    group(parent, name, "dict", "0.1.0")
}

/// A whole vector of numbers.
pub fn array<T: H5Type>(parent: &Group, name: &str, values: &[T]) -> Written<()> {
    let dataset = parent.new_dataset_builder().with_data(values).create(name)?;
    encode(&dataset, "array", "0.2.0")
}

/// A whole vector of text.
pub fn string_array<S: AsRef<str>>(parent: &Group, name: &str, values: &[S]) -> Written<()> {
    let dataset = parent.new_dataset_builder().with_data(&texts(values)?).create(name)?;
    encode(&dataset, "string-array", "0.2.0")
}

/// A value of uns.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    Text(String),
    Number(f64),
}

pub fn note(parent: &Group, name: &str, note: &Note) -> Written<()> {
    match note {
        Note::Text(value) => {
            let dataset = parent.new_dataset::<VarLenUnicode>().create(name)?;
            dataset.write_scalar(&text(value)?)?;
            encode(&dataset, "string", "0.2.0")
        }
        Note::Number(value) => {
            let dataset = parent.new_dataset::<f64>().create(name)?;
            dataset.write_scalar(value)?;
            encode(&dataset, "numeric-scalar", "0.2.0")
        }
    }
}

/// A copy of an object, as it is stored, with all below it.
#[allow(unsafe_code)]
pub fn copy(from: &Group, name: &str, to: &Group, new_name: &str) -> Written<()> {
    let (Ok(name), Ok(new_name)) = (CString::new(name), CString::new(new_name)) else {
        return Err(hdf5::Error::from("a name holds a NUL"));
    };
    let copied = hdf5::sync::sync(|| {
        // SAFETY: HDF5's lock is held, both groups are open, and the names are C strings that outlive the call.
        unsafe { H5Ocopy(from.id(), name.as_ptr(), to.id(), new_name.as_ptr(), H5P_DEFAULT, H5P_DEFAULT) }
    });
    match copied {
        0.. => Ok(()),
        _ => Err(hdf5::Error::from(format!("{} of {} cannot be copied", name.to_string_lossy(), from.filename()))),
    }
}

/// How the values of a column are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Real,
    Integer {
        missing: bool,
    },
    Logical {
        missing: bool,
    },
    Text,
    /// Values are codes into these, None for missing.
    Category(Vec<String>),
}

impl Kind {
    /// The kind of a whole column, and the column as that kind stores it: text with gaps becomes categories.
    pub fn of(column: Column) -> (Self, Column) {
        let kind = match &column {
            Column::Real(_) => Kind::Real,
            Column::Integer(values) => Kind::Integer { missing: values.contains(&None) },
            Column::Logical(values) => Kind::Logical { missing: values.contains(&None) },
            Column::Text(values) if values.contains(&None) => {
                let mut levels: Vec<String> = values.iter().flatten().cloned().collect();
                levels.sort_unstable();
                levels.dedup();
                let code = |value: &String| levels.binary_search(value).ok().map(|at| at as i32);
                let codes = values.iter().map(|value| value.as_ref().and_then(code)).collect();
                return (Kind::Category(levels), Column::Integer(codes));
            }
            Column::Text(_) => Kind::Text,
        };
        (kind, column)
    }
}

/// The names of the rows of a table.
pub enum Index<'a> {
    /// With the name of their column.
    Names(&'a str, &'a [String]),
    /// As they stand in another file.
    Copy(&'a Frame<'a>),
}

/// The name of the index where no other is known.
pub const INDEX: &str = "_index";

/// A table whose rows are written in ranges.
pub struct Table {
    columns: Vec<(Dataset, Option<Dataset>)>,
}

impl Table {
    /// Columns of `kept` come first; those of `columns` take the place of any of the same name.
    pub fn create<'a>(
        parent: &Group,
        name: &str,
        index: Index<'a>,
        n_rows: usize,
        kept: Option<&Frame>,
        columns: &[(String, Kind)],
    ) -> Written<Self> {
        let group = group(parent, name, "dataframe", "0.2.0")?;
        // A slash would be a path.
        let columns: Vec<(String, &Kind)> = columns.iter().map(|(name, kind)| (name.replace('/', "_"), kind)).collect();
        let is_ours = |name: &str| columns.iter().any(|(ours, _)| ours == name);
        let free = |name: &'a str| if is_ours(name) { INDEX } else { name };
        let index_name = match index {
            Index::Names(name, names) => {
                string_array(&group, free(name), names)?;
                free(name)
            }
            Index::Copy(frame) => {
                let name = frame.index_name();
                copy(frame.group(), name, &group, free(name))?;
                free(name)
            }
        };
        set_text(&group, "_index", index_name)?;
        let mut order: Vec<String> = vec![];
        if let Some(kept) = kept {
            for name in kept.encoded_columns() {
                if name != index_name && !is_ours(&name) {
                    copy(kept.group(), &name, &group, &name)?;
                    order.push(name);
                }
            }
        }
        let mut made = vec![];
        for (name, kind) in &columns {
            made.push(create_column(&group, name, kind, n_rows)?);
            order.push(name.clone());
        }
        set_texts(&group, "column-order", &order)?;
        let ours: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
        set_texts(&group, OURS, &ours)?;
        Ok(Table { columns: made })
    }

    /// Writes the rows from `first` on, one part for each column, in the order and of the kinds of [`Table::create`].
    pub fn write(&self, first: usize, parts: &[Column]) -> Written<()> {
        for ((values, mask), part) in self.columns.iter().zip(parts) {
            let gaps = match part {
                Column::Real(part) => {
                    write_at(values, first, part)?;
                    vec![]
                }
                Column::Integer(part) => {
                    // The code of a missing category is -1.
                    let none = if mask.is_some() { 0 } else { -1 };
                    write_at(values, first, &part.iter().map(|value| value.unwrap_or(none)).collect::<Vec<_>>())?;
                    part.iter().map(Option::is_none).collect()
                }
                Column::Logical(part) => {
                    write_at(values, first, &part.iter().map(|value| value.unwrap_or(false)).collect::<Vec<_>>())?;
                    part.iter().map(Option::is_none).collect()
                }
                Column::Text(part) => {
                    let part: Vec<&str> = part.iter().map(|value| value.as_deref().unwrap_or("")).collect();
                    write_at(values, first, &texts(&part)?)?;
                    vec![]
                }
            };
            if let Some(mask) = mask {
                write_at::<bool>(mask, first, &gaps)?;
            }
        }
        Ok(())
    }
}

/// A whole column.
#[derive(Debug, Clone)]
pub struct Stored {
    pub name: String,
    pub kind: Kind,
    pub values: Column,
}

impl Stored {
    pub fn new(name: String, column: Column) -> Self {
        let (kind, values) = Kind::of(column);
        Stored { name, kind, values }
    }
}

/// A table of whole columns.
pub fn whole_table(
    parent: &Group,
    name: &str,
    index: Index,
    n_rows: usize,
    kept: Option<&Frame>,
    columns: Vec<Stored>,
) -> Written<()> {
    let (kinds, parts): (Vec<_>, Vec<_>) = columns.into_iter().map(|c| ((c.name, c.kind), c.values)).unzip();
    Table::create(parent, name, index, n_rows, kept, &kinds)?.write(0, &parts)
}

fn create_column(parent: &Group, name: &str, kind: &Kind, n: usize) -> Written<(Dataset, Option<Dataset>)> {
    fn vector<T: H5Type>(parent: &Group, name: &str, n: usize) -> Written<Dataset> {
        let dataset = parent.new_dataset::<T>().shape(n).create(name)?;
        encode(&dataset, "array", "0.2.0")?;
        Ok(dataset)
    }
    Ok(match kind {
        Kind::Real => (vector::<f64>(parent, name, n)?, None),
        Kind::Integer { missing: false } => (vector::<i32>(parent, name, n)?, None),
        Kind::Logical { missing: false } => (vector::<bool>(parent, name, n)?, None),
        Kind::Integer { missing: true } => {
            let group = group(parent, name, "nullable-integer", "0.1.0")?;
            (vector::<i32>(&group, "values", n)?, Some(vector::<bool>(&group, "mask", n)?))
        }
        Kind::Logical { missing: true } => {
            let group = group(parent, name, "nullable-boolean", "0.1.0")?;
            (vector::<bool>(&group, "values", n)?, Some(vector::<bool>(&group, "mask", n)?))
        }
        Kind::Text => {
            let dataset = parent.new_dataset::<VarLenUnicode>().shape(n).create(name)?;
            encode(&dataset, "string-array", "0.2.0")?;
            (dataset, None)
        }
        Kind::Category(levels) => {
            let group = group(parent, name, "categorical", "0.2.0")?;
            group.new_attr::<bool>().create("ordered")?.write_scalar(&false)?;
            string_array(&group, "categories", levels)?;
            (vector::<i32>(&group, "codes", n)?, None)
        }
    })
}

/// Nothing is written of nothing: HDF5 refuses empty selections.
fn write_at<T: H5Type>(dataset: &Dataset, first: usize, values: &[T]) -> Written<()> {
    match values.is_empty() {
        true => Ok(()),
        false => dataset.write_slice(values, s![first..first + values.len()]),
    }
}

/// A matrix of compressed rows, which are added in their order.
pub struct Rows {
    data: Dataset,
    indices: Dataset,
    indptr: Dataset,
    rows: usize,
    stored: usize,
    grows: bool,
}

impl Rows {
    /// `shape` is the number of rows and columns, `stored` that of the values where it is known, `most` at least that.
    pub fn create<T: H5Type>(
        parent: &Group,
        name: &str,
        shape: (usize, usize),
        stored: Option<usize>,
        most: usize,
    ) -> Written<Self> {
        let group = group(parent, name, "csr_matrix", "0.1.0")?;
        group.new_attr_builder().with_data(&[shape.0 as i64, shape.1 as i64]).create("shape")?;
        let chunk = most.clamp(1, CHUNK);
        let (data, indices) = match stored {
            Some(n) => (
                group.new_dataset::<T>().shape(n).create("data")?,
                group.new_dataset::<i32>().shape(n).create("indices")?,
            ),
            None => (
                group.new_dataset::<T>().chunk(chunk).shape(0..).create("data")?,
                group.new_dataset::<i32>().chunk(chunk).shape(0..).create("indices")?,
            ),
        };
        let indptr = group.new_dataset::<i32>().shape(shape.0 + 1).create("indptr")?;
        write_at(&indptr, 0, &[0i32])?;
        Ok(Rows { data, indices, indptr, rows: 0, stored: 0, grows: stored.is_none() })
    }

    /// `starts` has one more value than there are rows; the first may be any.
    pub fn add<T: H5Type>(&mut self, starts: &[i32], indices: &[i32], data: &[T]) -> Written<()> {
        let Some(&before) = starts.first() else { return Ok(()) };
        if self.grows {
            self.data.resize(self.stored + data.len())?;
            self.indices.resize(self.stored + data.len())?;
        }
        write_at(&self.data, self.stored, data)?;
        write_at(&self.indices, self.stored, indices)?;
        let ends: Vec<i32> = starts[1..].iter().map(|end| end - before + self.stored as i32).collect();
        write_at(&self.indptr, self.rows + 1, &ends)?;
        self.rows += ends.len();
        self.stored += data.len();
        Ok(())
    }
}

/// What the matrices of an AnnData hold.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub cells: usize,
    pub guides: usize,
    /// Stored counts.
    pub counts: usize,
    /// Whether there is a layer of calls.
    pub calls: bool,
    /// Called pairs, where it is known.
    pub called: Option<usize>,
    /// Whether there is a layer of scores, and one of their log odds.
    pub scores: bool,
    pub log_odds: bool,
}

/// Rows of the matrices: `starts`, guides and values of the counts; scores and log odds of the same pattern, which may be empty;
/// starts and guides of calls, which are empty where nothing is decided yet.
pub struct Block<'a> {
    pub starts: &'a [i32],
    pub guides: &'a [i32],
    pub counts: &'a [f64],
    pub scores: &'a [f64],
    pub log_odds: &'a [f64],
    pub called_starts: &'a [i32],
    pub called: &'a [i32],
}

/// The matrices of an AnnData: X the counts and, where there are any, the layers `assigned`, `scores` and `log_odds`.
pub struct Matrices {
    x: Rows,
    assigned: Option<Rows>,
    scores: Option<Rows>,
    log_odds: Option<Rows>,
}

impl Matrices {
    /// Makes the AnnData in an empty group; obs, var and uns are made by others.
    pub fn create(root: &Group, shape: Shape) -> Written<Self> {
        encode(root, "anndata", "0.1.0")?;
        for name in ["obsm", "varm", "obsp", "varp"] {
            dict(root, name)?;
        }
        let layers = dict(root, "layers")?;
        let (size, counts) = ((shape.cells, shape.guides), shape.counts);
        let assigned = || Rows::create::<u8>(&layers, "assigned", size, shape.called, counts);
        let values = |name| Rows::create::<f64>(&layers, name, size, Some(counts), counts);
        Ok(Matrices {
            x: Rows::create::<i32>(root, "X", size, Some(counts), counts)?,
            assigned: if shape.calls { Some(assigned()?) } else { None },
            scores: if shape.scores { Some(values("scores")?) } else { None },
            log_odds: if shape.log_odds { Some(values("log_odds")?) } else { None },
        })
    }

    pub fn add(&mut self, block: &Block) -> Written<()> {
        let counts: Vec<i32> = block.counts.iter().map(|&count| count as i32).collect();
        self.x.add(block.starts, block.guides, &counts)?;
        if let Some(assigned) = &mut self.assigned {
            assigned.add(block.called_starts, block.called, &vec![1u8; block.called.len()])?;
        }
        for (rows, values) in [(&mut self.scores, block.scores), (&mut self.log_odds, block.log_odds)] {
            if let Some(rows) = rows {
                rows.add(block.starts, block.guides, values)?;
            }
        }
        Ok(())
    }
}

/// uns/kaichi: how the calls were made, the fits where they are not per guide, and what was learnt of the whole screen.
pub fn write_uns(
    root: &Group,
    notes: &[(String, Note)],
    fits: Option<Vec<Stored>>,
    screen: Option<Vec<Stored>>,
) -> Written<()> {
    let kaichi = dict(&dict(root, "uns")?, "kaichi")?;
    for (name, value) in notes {
        note(&kaichi, name, value)?;
    }
    for (name, columns) in [("fits", fits), ("screen", screen)] {
        let Some(columns) = columns else { continue };
        let n = columns.first().map_or(0, |column| column.values.len());
        let names: Vec<String> = (0..n).map(|row| row.to_string()).collect();
        whole_table(&kaichi, name, Index::Names(INDEX, &names), n, None, columns)?;
    }
    Ok(())
}

/// Another name of obs/guide_id, under which kaichi for Python looks for it.
pub fn link_identity(root: &Group) -> Written<()> {
    let obs = root.group("obs")?;
    if obs.link_exists("guide_identity") {
        obs.unlink("guide_identity")?;
        let order: Vec<String> =
            attributes(&obs, "column-order").into_iter().filter(|name| name != "guide_identity").collect();
        obs.delete_attr("column-order")?;
        set_texts(&obs, "column-order", &order)?;
    }
    obs.link_hard("guide_id", "guide_identity")?;
    for names in ["column-order", OURS] {
        let mut all = attributes(&obs, names);
        all.push("guide_identity".to_owned());
        obs.delete_attr(names)?;
        set_texts(&obs, names, &all)?;
    }
    Ok(())
}

/// Calls that are in memory.
pub struct Content<'a> {
    pub cells: &'a [String],
    pub guides: &'a [String],
    pub matrices: Block<'a>,
    pub obs: Vec<Stored>,
    pub var: Vec<Stored>,
    pub notes: &'a [(String, Note)],
    /// Where they are not per guide, and so in var.
    pub fits: Option<Vec<Stored>>,
    /// What was learnt of the whole screen, one row.
    pub screen: Option<Vec<Stored>>,
}

impl Content<'_> {
    /// No fewer bytes than these take in a file.
    pub fn size(&self) -> u64 {
        // Text has 16 bytes where it stands, and a header of 16 in a heap that is not always full.
        let text = |text: &str| 2 * text.len() as u64 + 48;
        let column = |column: &Stored| {
            let levels = match &column.kind {
                Kind::Category(levels) => levels.iter().map(|level| text(level)).sum(),
                _ => 0,
            };
            let values = match &column.values {
                Column::Text(values) => values.iter().map(|value| text(value.as_deref().unwrap_or(""))).sum(),
                values => 8 * values.len() as u64,
            };
            // And the headers of up to three datasets.
            levels + values + (1 << 14)
        };
        let names = |names: &[String]| names.iter().map(|name| text(name)).sum::<u64>();
        let columns = self.obs.iter().chain(&self.var).chain(self.fits.iter().chain(&self.screen).flatten());
        let matrices = 8 * self.matrices.counts.len()
            + 12 * (self.matrices.scores.len() + self.matrices.log_odds.len())
            + 5 * self.matrices.called.len();
        matrices as u64
            + 12 * self.cells.len() as u64
            + names(self.cells)
            + names(self.guides)
            + columns.map(column).sum::<u64>()
    }
}

/// Writes an .h5ad. The columns of obs and var of `template`, an .h5ad of the same cells and guides in the same order, are kept.
pub fn write(path: &Path, overwrite: bool, template: Option<&Path>, content: Content) -> Result<()> {
    let draft = Draft::new(path, template, overwrite)?;
    quietly(|| {
        let input = template.map(|path| super::open(Source(path))).transpose()?;
        let frame = |name, row| {
            let frame = |(path, file): (_, &hdf5::File)| Frame::open(Source(path), file, name, row);
            template.zip(input.as_ref()).map(frame).transpose()
        };
        let (obs, var) = (frame("obs", "cell")?, frame("var", "guide")?);
        let file = draft.open(0)?;
        // Of the template come tables, which are part of it.
        draft.reserve(&file, content.size() + template.map_or(0, file_size))?;
        write_anndata(&file, obs.as_ref(), var.as_ref(), content).map_err(|error| draft.failed(error))?;
        draft.close(file)
    })?;
    draft.finish()
}

/// Makes an AnnData in an empty group.
pub fn write_anndata<'a>(
    root: &Group,
    obs: Option<&'a Frame>,
    var: Option<&'a Frame>,
    content: Content,
) -> Written<()> {
    let (cells, guides, block) = (content.cells, content.guides, &content.matrices);
    let shape = Shape {
        cells: cells.len(),
        guides: guides.len(),
        counts: block.counts.len(),
        calls: !block.called_starts.is_empty(),
        called: Some(block.called.len()),
        scores: !block.scores.is_empty(),
        log_odds: !block.log_odds.is_empty(),
    };
    Matrices::create(root, shape)?.add(block)?;
    let named = content.obs.iter().any(|column| column.name == "guide_id");
    let index = |frame: Option<&'a Frame>| frame.map_or(INDEX, |frame| frame.index_name());
    whole_table(root, "obs", Index::Names(index(obs), cells), cells.len(), obs, content.obs)?;
    if named {
        link_identity(root)?;
    }
    whole_table(root, "var", Index::Names(index(var), guides), guides.len(), var, content.var)?;
    write_uns(root, content.notes, content.fits, content.screen)
}
