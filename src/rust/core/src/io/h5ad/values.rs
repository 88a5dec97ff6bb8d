//! Typed reading of HDF5 datasets and attributes: numbers, strings, encodings, filters.
use std::fmt::Display;
use std::ops::Range;
use std::path::Path;

use hdf5::filters::Filter;
use hdf5::plist::dataset_create::Layout;
use hdf5::types::{FixedAscii, FixedUnicode, FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Container, Dataset, Datatype, H5Type, Location};
use hdf5_sys::h5t::{H5T_class_t, H5Tget_class};
use ndarray::s;
use rayon::prelude::*;

use super::chunks::{self, Converted};
use super::texts::{self, Texts};
use super::{too_many, zstd, MOST};
use crate::run::check_reading;
use crate::{Error, Result};

/// The file, to be named in every error.
#[derive(Clone, Copy)]
pub struct Source<'a>(pub &'a Path);

impl Source<'_> {
    fn text(self, text: impl Display) -> String {
        format!("The file \"{}\" {text}", self.0.display())
    }
    fn text_in(self, text: impl Display) -> String {
        format!("In the file \"{}\", {text}", self.0.display())
    }
    /// "The file ... <text>".
    pub fn file(self, text: impl Display) -> Error {
        Error::File(self.text(text))
    }
    /// "The file ... <text>".
    pub fn format(self, text: impl Display) -> Error {
        Error::Format(self.text(text))
    }
    /// "In the file ..., <text>".
    pub fn format_in(self, text: impl Display) -> Error {
        Error::Format(self.text_in(text))
    }
    pub fn counts(self, text: impl Display) -> Error {
        Error::Counts(self.text_in(text))
    }
    pub fn names(self, text: impl Display) -> Error {
        Error::Names(self.text_in(text))
    }
    pub fn batch(self, text: impl Display) -> Error {
        Error::Batch(self.text_in(text))
    }
    pub fn damaged(self, what: &str, error: hdf5::Error) -> Error {
        self.format_in(format!("{what} cannot be read: {error}.\n  The file may be damaged. Write it again."))
    }
}

/// Names in quotes, cut after ten.
pub fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    quoted_to(10, names)
}

/// Names in quotes, cut after `most`.
pub fn quoted_to<S: AsRef<str>>(most: usize, names: &[S]) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|name| format!("\"{}\"", name.as_ref())).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What an object says of itself: `encoding-type` and `encoding-version`.
pub struct Encoding {
    pub kind: String,
    pub version: String,
}

impl Encoding {
    /// Whether this is `kind`; an error where it is, in a version that is not known.
    pub fn is(&self, source: Source, what: &str, kind: &str, versions: &[&str]) -> Result<bool> {
        if self.kind != kind {
            return Ok(false);
        }
        if versions.contains(&self.version.as_str()) {
            return Ok(true);
        }
        Err(source.format_in(format!(
            "{what} is encoded as {kind} in version \"{}\"; kaichi 0.1 knows {}.\n  \
             Write the file again with a version of anndata that writes one of these.",
            self.version,
            quoted(versions)
        )))
    }
}

pub fn encoding(object: &Location) -> Option<Encoding> {
    let kind = attribute(object, "encoding-type")?;
    Some(Encoding { kind, version: attribute(object, "encoding-version").unwrap_or_default() })
}

/// A text attribute; R tools write it as a vector of one.
pub fn attribute(object: &Location, name: &str) -> Option<String> {
    attributes(object, name).into_iter().next()
}

/// An attribute of several texts; none where there is no such attribute.
pub fn attributes(object: &Location, name: &str) -> Vec<String> {
    let raw = object.attr(name).and_then(|attribute| raw_strings(&attribute, None));
    raw.ok().flatten().unwrap_or_default().into_iter().filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
}

/// A text that stands alone in a dataset.
pub fn single_text(group: &hdf5::Group, name: &str) -> Option<String> {
    let raw = raw_strings(&*group.dataset(name).ok()?, None).ok()??;
    String::from_utf8(raw.into_iter().next()?).ok()
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
    Bool,
}

impl Number {
    pub fn is_float(self) -> bool {
        matches!(self, Number::F16 | Number::F32 | Number::F64)
    }

    /// The stored type, or none where it is no number.
    pub fn of(container: &Container) -> Option<Self> {
        let dtype = container.dtype().ok()?;
        Some(match descriptor(&dtype) {
            Some(TypeDescriptor::Integer(IntSize::U1)) => Number::I8,
            Some(TypeDescriptor::Integer(IntSize::U2)) => Number::I16,
            Some(TypeDescriptor::Integer(IntSize::U4)) => Number::I32,
            Some(TypeDescriptor::Integer(IntSize::U8)) => Number::I64,
            Some(TypeDescriptor::Unsigned(IntSize::U1)) => Number::U8,
            Some(TypeDescriptor::Unsigned(IntSize::U2)) => Number::U16,
            Some(TypeDescriptor::Unsigned(IntSize::U4)) => Number::U32,
            Some(TypeDescriptor::Unsigned(IntSize::U8)) => Number::U64,
            Some(TypeDescriptor::Float(FloatSize::U4)) => Number::F32,
            Some(TypeDescriptor::Float(FloatSize::U8)) => Number::F64,
            Some(TypeDescriptor::Boolean) => Number::Bool,
            // The crate has no two-byte float; an integer of that size has a descriptor.
            None if class(&dtype) == Class::Float && dtype.size() == 2 => Number::F16,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Class {
    Integer,
    Float,
    Enum,
    Text,
    Other,
}

#[allow(unsafe_code)]
fn class(dtype: &Datatype) -> Class {
    // SAFETY: HDF5's lock is held, and the type is open.
    match hdf5::sync::sync(|| unsafe { H5Tget_class(dtype.id()) }) {
        H5T_class_t::H5T_INTEGER => Class::Integer,
        H5T_class_t::H5T_FLOAT => Class::Float,
        H5T_class_t::H5T_ENUM => Class::Enum,
        H5T_class_t::H5T_STRING => Class::Text,
        _ => Class::Other,
    }
}

/// What a stored type is, where it is a number or text. The crate writes the values of an enum into 8 bytes, whatever their size
/// is, and looks into types within types: neither is left to it.
pub fn descriptor(dtype: &Datatype) -> Option<TypeDescriptor> {
    match class(dtype) {
        Class::Other => None,
        Class::Enum if dtype.size() > 8 => None,
        _ => dtype.to_descriptor().ok(),
    }
}

/// A stored number. Every f64 up to 2^53 is exact, and no valid count, index or start exceeds 2^31.
pub trait Stored: H5Type + FromBytes + Display + Sync {
    fn to_f64(self) -> f64;
}

/// A value that is read without HDF5.
pub trait FromBytes: Copy {
    /// From the first of these bytes, in the order of this machine.
    fn from_bytes(bytes: [u8; 16]) -> Self;
}

impl FromBytes for [u8; 16] {
    fn from_bytes(bytes: [u8; 16]) -> Self {
        bytes
    }
}

macro_rules! stored {
    ($($t:ty),*) => { $(impl Stored for $t {
        #[inline]
        fn to_f64(self) -> f64 {
            self as f64
        }
    }

    impl FromBytes for $t {
        #[inline]
        fn from_bytes(bytes: [u8; 16]) -> Self {
            let mut own = [0; size_of::<Self>()];
            own.copy_from_slice(&bytes[..size_of::<Self>()]);
            Self::from_ne_bytes(own)
        }
    })* };
}
stored!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

/// Calls a function generic in the stored type: integers and 4 or 8 byte floats are read as they are stored, which is
/// faster than HDF5's conversion; booleans (an enum) and 2 byte floats are widened by HDF5.
macro_rules! as_stored {
    ($number:expr, $f:ident ( $($arg:expr),* )) => {
        match $number {
            Number::I8 | Number::Bool => $f::<i8, _>($($arg),*),
            Number::I16 => $f::<i16, _>($($arg),*),
            Number::I32 => $f::<i32, _>($($arg),*),
            Number::I64 => $f::<i64, _>($($arg),*),
            Number::U8 => $f::<u8, _>($($arg),*),
            Number::U16 => $f::<u16, _>($($arg),*),
            Number::U32 => $f::<u32, _>($($arg),*),
            Number::U64 => $f::<u64, _>($($arg),*),
            Number::F16 | Number::F32 => $f::<f32, _>($($arg),*),
            Number::F64 => $f::<f64, _>($($arg),*),
        }
    };
}

/// Texts that are read at once.
const PIECE: usize = 1 << 16;

/// A dataset that can be read: its filters are present and its size is sane.
pub struct Values<'a> {
    pub source: Source<'a>,
    /// Its path in the file, for errors.
    pub what: String,
    pub dataset: Dataset,
    pub shape: Vec<usize>,
}

impl<'a> Values<'a> {
    pub fn open(source: Source<'a>, group: &hdf5::Group, parent: &str, name: &str) -> Result<Self> {
        let what = format!("{parent}/{name}").trim_start_matches('/').to_owned();
        if !group.link_exists(name) {
            return Err(source.format_in(format!("{what} is missing.\n  The file may be damaged. Write it again.")));
        }
        let dataset = group.dataset(name).map_err(|error| source.damaged(&what, error))?;
        Self::of(source, what, dataset)
    }

    pub fn of(source: Source<'a>, what: String, dataset: Dataset) -> Result<Self> {
        check_own(source, &what, &dataset)?;
        check_filters(source, &what, &dataset)?;
        check_stored(source, &what, &dataset)?;
        let shape = dataset.shape();
        Ok(Values { source, what, dataset, shape })
    }

    /// The length of a vector.
    pub fn len(&self) -> Result<usize> {
        match self.shape[..] {
            [n] if n <= MOST => Ok(n),
            [n] => Err(too_many(self.source, &self.what, n)),
            _ => Err(self.source.format_in(format!(
                "{} has {} dimensions where it should have one.\n  The file may be damaged. Write it again.",
                self.what,
                self.shape.len()
            ))),
        }
    }

    pub fn number(&self) -> Result<Number> {
        Number::of(&self.dataset).ok_or_else(|| self.wrong_type("numbers"))
    }

    pub fn wrong_type(&self, expected: &str) -> Error {
        let dtype = match self.dataset.dtype().ok().and_then(|dtype| descriptor(&dtype)) {
            Some(descriptor) => descriptor.to_string(),
            None => "one that kaichi 0.1 does not know".to_owned(),
        };
        self.source.format_in(format!("{} should hold {expected}, but its stored type is {dtype}.", self.what))
    }

    /// A vector of numbers, each made by `convert(position, value)`.
    pub fn numbers<O>(&self, convert: impl FnMut(usize, f64) -> Result<O>) -> Result<Vec<O>> {
        let mut convert = convert;
        let mut out = self.reserve(self.len()?)?;
        let push = |position, value: f64| {
            out.push(convert(position, value)?);
            Ok(())
        };
        as_stored!(self.number()?, each_in_vector(self, push))?;
        Ok(out)
    }

    /// A range of a vector of numbers, converted on all threads of the current pool; where `convert` gives none, the error of
    /// `refuse`, which gets the position within the range.
    pub fn convert<O: Copy + Default + Send>(
        &self,
        range: Range<usize>,
        convert: impl Fn(f64) -> Option<O> + Sync,
        refuse: impl Fn(usize, f64) -> Error,
    ) -> Result<Vec<O>> {
        let mut out = self.reserve(range.len())?;
        // All threads touch the memory first.
        range.clone().into_par_iter().with_min_len(PIECE).map(|_| O::default()).collect_into_vec(&mut out);
        if let Some((position, value)) =
            as_stored!(self.number()?, convert_vector(self, range.start, &mut out, convert))?
        {
            return Err(refuse(position, value));
        }
        Ok(out)
    }

    /// A vector of integers, for counting and indexing.
    pub fn integers<O>(&self, convert: impl FnMut(usize, f64) -> Result<O>) -> Result<Vec<O>> {
        match self.number()? {
            number if number.is_float() => Err(self.wrong_type("integers")),
            _ => self.numbers(convert),
        }
    }

    /// A vector of numbers, printed.
    pub fn printed(&self) -> Result<Vec<String>> {
        let mut out = self.reserve(self.len()?)?;
        let number = self.number()?;
        let push = |text: String| {
            out.push(match (number, text.as_str()) {
                (Number::Bool, "0") => "FALSE".to_owned(),
                (Number::Bool, _) => "TRUE".to_owned(),
                _ => text,
            })
        };
        as_stored!(number, print_each(self, push))?;
        Ok(out)
    }

    /// A matrix, visited as (row, column, value), a block of rows in memory at a time.
    pub fn each_in_matrix(&self, visit: impl FnMut(usize, usize, f64) -> Result<()>) -> Result<()> {
        as_stored!(self.number()?, each_in_matrix(self, visit))
    }

    pub fn strings(&self) -> Result<Vec<String>> {
        self.strings_in(0..self.len()?)
    }

    /// A range of a vector of text.
    pub fn strings_in(&self, range: Range<usize>) -> Result<Vec<String>> {
        let mut out = self.reserve(range.len())?;
        // Texts may share their bytes in a damaged file, so that a small one claims any amount: they are never more than the file.
        let file = std::fs::metadata(self.source.0).map_or(usize::MAX, |file| file.len() as usize);
        let too_long = || {
            self.source.format_in(format!(
                "the text of {} is longer than the file.\n  The file may be damaged. Write it again.",
                self.what
            ))
        };
        let damaged = |error| self.source.damaged(&self.what, error);
        let mut bytes = 0;
        for first in range.clone().step_by(PIECE) {
            check_reading()?;
            let piece = first..(first + PIECE).min(range.end);
            let raw = match texts::read(self.source.0, &self.dataset, piece.clone(), file.saturating_sub(bytes))
                .map_err(damaged)?
            {
                Texts::Read(raw) => {
                    bytes += raw.iter().map(Vec::len).sum::<usize>();
                    raw
                }
                Texts::TooLong => return Err(too_long()),
                Texts::NotHere => {
                    raw_strings(&self.dataset, Some(piece)).map_err(damaged)?.ok_or_else(|| self.wrong_type("text"))?
                }
            };
            let mut texts = vec![];
            raw.into_par_iter()
                .with_min_len(1 << 12)
                .map(|text| String::from_utf8(text).ok())
                .collect_into_vec(&mut texts);
            if let Some(position) = texts.iter().position(Option::is_none) {
                let place = first + position + 1;
                return Err(self.source.format_in(format!("value {place} of {} is not UTF-8 text.", self.what)));
            }
            out.extend(texts.into_iter().flatten());
        }
        Ok(out)
    }

    /// True where a value is missing.
    pub fn mask(&self) -> Result<Vec<bool>> {
        self.integers(|_, value| Ok(value != 0.0))
    }

    fn reserve<T>(&self, n: usize) -> Result<Vec<T>> {
        let mut out = Vec::new();
        match out.try_reserve_exact(n) {
            Ok(()) => Ok(out),
            Err(_) => Err(self.source.counts(format!("{} has {n} values, which do not fit into memory.", self.what))),
        }
    }

    /// How much of the first axis to read at once: whole chunks, so that none is decompressed twice, about 0.5 M values,
    /// which fit into the processor's cache.
    fn block(&self) -> usize {
        let width: usize = self.shape[1..].iter().product::<usize>().max(1);
        let wanted = ((1 << 19) / width).max(1);
        // A chunk that spans very many rows is read in parts rather than held as a dense matrix.
        let most = ((1 << 26) / width).max(1);
        let chunk = self.dataset.chunk().and_then(|chunk| chunk.first().copied()).unwrap_or(1).max(1);
        (wanted.div_ceil(chunk) * chunk).min(most.max(wanted))
    }
}

fn each_in_vector<T: Stored, F: FnMut(usize, f64) -> Result<()>>(values: &Values, mut visit: F) -> Result<()> {
    let n = values.len()?;
    let block = values.block();
    for start in (0..n).step_by(block) {
        check_reading()?;
        let end = (start + block).min(n);
        let read = values.dataset.as_reader().read_slice_1d::<T, _>(s![start..end]);
        let read = read.map_err(|error| values.source.damaged(&values.what, error))?;
        for (position, value) in read.iter().enumerate() {
            visit(start + position, value.to_f64())?;
        }
    }
    Ok(())
}

/// The first value that does not convert, with its position.
fn convert_vector<T: Stored, O: Send>(
    values: &Values,
    first: usize,
    out: &mut [O],
    convert: impl Fn(f64) -> Option<O> + Sync,
) -> Result<Option<(usize, f64)>> {
    // Work for many threads, between two looks whether to stop.
    let block = 16 * values.block();
    for (number, out) in out.chunks_mut(block).enumerate() {
        check_reading()?;
        let before = number * block;
        let converted = chunks::numbers::<T, O>(values.source.0, &values.dataset, first + before, out, &convert);
        let refused = match converted {
            Converted::All => None,
            Converted::Refused(position, value) => Some((position, value)),
            Converted::Damaged => {
                return Err(values.source.format_in(format!(
                    "{} is damaged: a compressed chunk holds another number of values than it should.\n  Write the file again.",
                    values.what
                )))
            }
            Converted::NotHere => convert_by_hdf5::<T, O>(values, first + before, out, &convert)?,
        };
        if let Some((position, value)) = refused {
            return Ok(Some((before + position, value)));
        }
    }
    Ok(None)
}

fn convert_by_hdf5<T: Stored, O: Send>(
    values: &Values,
    first: usize,
    out: &mut [O],
    convert: &(impl Fn(f64) -> Option<O> + Sync),
) -> Result<Option<(usize, f64)>> {
    const PIECE: usize = 1 << 15;
    let block = values.block();
    for (number, out) in out.chunks_mut(block).enumerate() {
        check_reading()?;
        let start = number * block;
        let read = values.dataset.as_reader().read_slice_1d::<T, _>(s![first + start..first + start + out.len()]);
        let read = read.map_err(|error| values.source.damaged(&values.what, error))?.into_raw_vec_and_offset().0;
        let refused = out.par_chunks_mut(PIECE).zip(read.par_chunks(PIECE)).position_first(|(out, read)| {
            let converted = out.iter_mut().zip(read).map(|(out, value)| match convert(value.to_f64()) {
                Some(value) => {
                    *out = value;
                    true
                }
                None => false,
            });
            !converted.fold(true, |all, one| all & one)
        });
        if let Some(piece) = refused {
            let values = read.iter().enumerate().skip(piece * PIECE);
            return Ok(values
                .map(|(position, value)| (start + position, value.to_f64()))
                .find(|&(_, value)| convert(value).is_none()));
        }
    }
    Ok(None)
}

fn print_each<T: Stored, F: FnMut(String)>(values: &Values, mut visit: F) -> Result<()> {
    let read = values.dataset.read_raw::<T>().map_err(|error| values.source.damaged(&values.what, error))?;
    read.iter().for_each(|value| visit(value.to_string()));
    Ok(())
}

fn each_in_matrix<T: Stored, F: FnMut(usize, usize, f64) -> Result<()>>(values: &Values, mut visit: F) -> Result<()> {
    // Rows without columns take no room, so a file may claim any number of them.
    let rows = if values.shape[1] == 0 { 0 } else { values.shape[0] };
    let block = values.block();
    for start in (0..rows).step_by(block) {
        check_reading()?;
        let end = (start + block).min(rows);
        let read = values.dataset.as_reader().read_slice_2d::<T, _>(s![start..end, ..]);
        let read = read.map_err(|error| values.source.damaged(&values.what, error))?;
        for (row, line) in read.outer_iter().enumerate() {
            for (column, value) in line.iter().enumerate() {
                visit(start + row, column, value.to_f64())?;
            }
        }
    }
    Ok(())
}

/// The bytes of each string, or none where the type is no string. The crate's `as_str` trusts the file to hold UTF-8,
/// so bytes it is. HDF5 converts neither fixed to variable length nor between character sets, but pads fixed ones.
fn raw_strings(container: &Container, range: Option<Range<usize>>) -> hdf5::Result<Option<Vec<Vec<u8>>>> {
    macro_rules! read {
        ($t:ty) => {{
            let read = match range {
                Some(range) => container.read_slice_1d::<$t, _>(s![range])?.into_raw_vec_and_offset().0,
                None => container.read_raw::<$t>()?,
            };
            read.iter().map(|text| text.as_bytes().to_vec()).collect()
        }};
    }
    let Some(descriptor) = descriptor(&container.dtype()?) else { return Ok(None) };
    Ok(Some(match descriptor {
        TypeDescriptor::VarLenUnicode => read!(VarLenUnicode),
        TypeDescriptor::VarLenAscii => read!(VarLenAscii),
        TypeDescriptor::FixedAscii(0..=32) => read!(FixedAscii<32>),
        TypeDescriptor::FixedAscii(33..=256) => read!(FixedAscii<256>),
        TypeDescriptor::FixedAscii(257..=4096) => read!(FixedAscii<4096>),
        TypeDescriptor::FixedUnicode(0..=32) => read!(FixedUnicode<32>),
        TypeDescriptor::FixedUnicode(33..=256) => read!(FixedUnicode<256>),
        TypeDescriptor::FixedUnicode(257..=4096) => read!(FixedUnicode<4096>),
        _ => return Ok(None),
    }))
}

/// Refuses values that are in another file: no input names files that the user did not.
fn check_own(source: Source, what: &str, dataset: &Dataset) -> Result<()> {
    let how = dataset.dcpl().map_err(|error| source.damaged(what, error))?;
    if how.layout() == Layout::Virtual || !how.external().is_empty() {
        return Err(source.format_in(format!(
            "the values of {what} are in another file (external storage or a virtual dataset), which kaichi does not follow.\n  \
             Write them into one file."
        )));
    }
    Ok(())
}

/// Refuses a length that nothing in the file stands for: a few bytes may claim any, and all of it would be memory.
fn check_stored(source: Source, what: &str, dataset: &Dataset) -> Result<()> {
    // Below this no one is hurt, and chunks that are full of one value need not be stored.
    const FREE: u128 = 1 << 20;
    // The most that gzip, the strongest of HDF5's own filters, gives; those of plugins have runs of any length.
    let most = match &dataset.filters()[..] {
        [] => 4,
        filters if filters.iter().all(|filter| filter.id() < 256 || filter.id() == 32000) => 1 << 10,
        _ => 1 << 17,
    };
    let size = dataset.dtype().map_or(0, |dtype| dtype.size()) as u128;
    let claimed = dataset.shape().iter().fold(size, |bytes, &n| bytes.saturating_mul(n as u128));
    let stored = u128::from(dataset.storage_size());
    if claimed <= FREE + most * stored {
        return Ok(());
    }
    Err(source.format_in(format!(
        "{what} claims {claimed} bytes of values, but {stored} are stored.\n  The file may be damaged. Write it again."
    )))
}

fn check_filters(source: Source, what: &str, dataset: &Dataset) -> Result<()> {
    zstd::register();
    for filter in dataset.filters() {
        // Asking also looks for the filter among the plugins.
        if Filter::get_info(filter.id()).decode_enabled {
            continue;
        }
        let name = match filter.id() {
            1 => "gzip",
            4 => "szip",
            307 => "bzip2",
            32000 => "lzf",
            32001 => "blosc",
            32004 => "lz4",
            32008 => "bitshuffle",
            32013 => "zfp",
            32015 => "zstd",
            32026 => "blosc2",
            _ => "an unknown filter",
        };
        return Err(source.format_in(format!(
            "{what} is compressed with {name} (HDF5 filter {}), which the HDF5 library in use cannot read.\n  \
             Write the file again with compression=\"gzip\", or set the environment variable HDF5_PLUGIN_PATH, before \
             R starts, to a folder with that plugin, such as rhdf5filters::hdf5_plugin_path().",
            filter.id()
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::quiet::quietly;
    use super::*;

    /// Longer than one block, in chunks that do not divide it.
    #[test]
    fn blocks_join_without_gaps() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-blocks.h5", std::process::id()));
        quietly(|| {
            let file = hdf5::File::create(&path).unwrap();
            let n: u32 = (1 << 20) + 101_001;
            let vector: Vec<u32> = (0..n).collect();
            file.new_dataset_builder().with_data(&vector).chunk(100_003).create("vector").unwrap();
            let width = 7;
            let rows = n as usize / width;
            let matrix = ndarray::Array2::from_shape_fn((rows, width), |(row, column)| (row * width + column) as u32);
            file.new_dataset_builder().with_data(&matrix).chunk((1013, 3)).create("matrix").unwrap();

            let open = |name| Values::open(Source(&path), &file, "", name).unwrap();
            let check = |position, value: f64| Ok(position as f64 == value);
            let read = open("vector");
            assert!(read.block() < n as usize && read.block() % 100_003 == 0);
            let same = read.integers(check).unwrap();
            assert!(same.len() == n as usize && same.iter().all(|&same| same));
            let refuse = |position: usize, value: f64| Error::Counts(format!("{position} {value}"));
            let same = read.convert(0..n as usize, |value| Some(value as u32), refuse).unwrap();
            assert!(same.iter().zip(0..).all(|(&value, position)| value == position) && same.len() == n as usize);
            let part = read.convert(70_001..900_007, |value| Some(value as u32), refuse).unwrap();
            assert!(part.iter().zip(70_001..).all(|(&value, position)| value == position) && part.len() == 830_006);
            let first =
                read.convert(0..n as usize, |value| (value < 900_000.0 && value != 700_001.0).then_some(0u8), refuse);
            assert_eq!(first.unwrap_err().to_string(), "700001 700001");

            let read = open("matrix");
            assert!(read.block() < rows && read.block() % 1013 == 0);
            let mut next = 0;
            let visit = |row: usize, column: usize, value: f64| {
                assert_eq!((row * width + column, value), (next, next as f64));
                next += 1;
                Ok(())
            };
            read.each_in_matrix(visit).unwrap();
            assert_eq!(next, rows * width);

            // Without end, if each of its rows were looked at.
            file.new_dataset::<i32>().shape((1usize << 60, 0)).create("none").unwrap();
            open("none").each_in_matrix(|_, _, _| panic!("there are no values")).unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    }
}
