//! obs and var: the index, and one column.
use std::ops::Range;

use hdf5::types::TypeDescriptor;
use hdf5::{Group, LocationType, ObjectReference1, ReferencedObject};
use rayon::prelude::*;

use super::values::{attribute, attributes, descriptor, encoding, quoted, Number, Source, Values};
use super::{too_many, MOST};
use crate::Result;

/// The attribute of a table that names the columns which kaichi wrote: calls of another model must not keep them.
pub const OURS: &str = "kaichi-columns";

pub struct Frame<'a> {
    source: Source<'a>,
    /// `obs` or `var`.
    name: &'static str,
    /// What a row is: a cell or a guide.
    row: &'static str,
    group: Group,
    index: String,
}

/// A column as text; `None` is NA.
struct Column {
    values: Vec<Option<String>>,
    float: bool,
}

impl<'a> Frame<'a> {
    pub fn open(source: Source<'a>, file: &Group, name: &'static str, row: &'static str) -> Result<Self> {
        if !matches!(file.loc_type_by_name(name), Ok(LocationType::Group)) {
            return Err(source.format(format!(
                "holds {name} as a table, as anndata before 0.7 wrote it; kaichi 0.1 reads the encodings of anndata \
                 0.7 and later.\n  Read it with anndata and write it again."
            )));
        }
        let group = file.group(name).map_err(|error| source.damaged(name, error))?;
        if let Some(encoding) = encoding(&group) {
            if !encoding.is(source, name, "dataframe", &["0.1.0", "0.2.0"])? {
                return Err(unknown(source, name, &encoding.kind, "a dataframe"));
            }
        }
        let index = match group.attr("_index") {
            // One that is no text says nothing.
            Ok(_) => attribute(&group, "_index"),
            Err(_) => ["_index", "index"].map(str::to_owned).into_iter().find(|name| group.link_exists(name)),
        };
        let Some(index) = index else {
            return Err(source.format_in(format!(
                "{name} does not say which column names the {row}s (attribute _index).\n  Write the file again with anndata."
            )));
        };
        Ok(Frame { source, name, row, group, index })
    }

    /// The names of the rows: present, not empty, and each once.
    pub fn index(&self) -> Result<Vec<String>> {
        let column = self.column(&self.index)?.values;
        self.check_length(column.len())?;
        let names: Vec<String> = column.into_iter().map(Option::unwrap_or_default).collect();
        self.check_present(0, &names)?;
        match first_twice(&names) {
            Some((first, again)) => Err(self.twice(&names[again], first, again)),
            None => Ok(names),
        }
    }

    /// The names of the rows as they stand, even if some are the same.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(self.column(&self.index)?.values.into_iter().map(Option::unwrap_or_default).collect())
    }

    pub fn check_length(&self, n: usize) -> Result<()> {
        if n == 0 {
            return Err(self.source.counts(format!("{} has no rows: there are no {}s.", self.name, self.row)));
        }
        if n > MOST {
            return Err(too_many(self.source, self.name, n));
        }
        Ok(())
    }

    /// That the names of these rows are there, and each once.
    pub fn check_names(&self, names: &[String], rows: &[usize]) -> Result<()> {
        let taken: Vec<String> = rows.iter().map(|&row| names[row].clone()).collect();
        if let Some(at) = taken.iter().position(String::is_empty) {
            return self.check_present(rows[at], &taken[at..=at]);
        }
        match first_twice(&taken) {
            Some((first, again)) => Err(self.twice(&taken[again], rows[first], rows[again])),
            None => Ok(()),
        }
    }

    /// Names from the place `first` on.
    fn check_present(&self, first: usize, names: &[String]) -> Result<()> {
        let Some(at) = names.iter().position(String::is_empty) else { return Ok(()) };
        let (row, position) = (self.row, first + at + 1);
        Err(self.source.names(format!(
            "{row} {position} has no name ({}/{} is empty there). Every {row} needs a name.",
            self.name, self.index
        )))
    }

    fn twice(&self, name: &str, first: usize, again: usize) -> crate::Error {
        self.source.names(format!(
            "the {} name \"{name}\" stands more than once in {} (rows {} and {}).\n  Make the names unique, \
             for example with {}_names_make_unique() of anndata.",
            self.row,
            self.name,
            first + 1,
            again + 1,
            self.name
        ))
    }

    /// The column that says which batch each cell belongs to.
    pub fn batch(&self, name: &str, cells: &[String]) -> Result<Vec<String>> {
        let source = self.source;
        let columns = self.columns();
        if !columns.iter().any(|column| column == name) {
            return Err(source.batch(match columns.is_empty() {
                true => format!("{} has no column \"{name}\"; it has no columns.", self.name),
                false => format!("{} has no column \"{name}\".\n  Its columns are {}.", self.name, quoted(&columns)),
            }));
        }
        let column = self.column(name)?;
        let what = format!("{}/{name}", self.name);
        if column.values.len() != cells.len() {
            return Err(source.format_in(format!(
                "{what} has {} values for {} cells.\n  The file may be damaged. Write it again.",
                column.values.len(),
                cells.len()
            )));
        }
        let missing = column.values.iter().filter(|value| value.is_none()).count();
        if let Some(first) = column.values.iter().position(Option::is_none) {
            return Err(source.batch(format!(
                "{what} is NA for cell \"{}\" ({missing} such cells). Give every cell a batch.",
                cells[first]
            )));
        }
        let values: Vec<String> = column.values.into_iter().flatten().collect();
        if column.float {
            // Whole numbers print without a point.
            if let Some(at) = values.iter().position(|value| !value.bytes().all(|b| b.is_ascii_digit() || b == b'-')) {
                return Err(source.batch(format!(
                    "{what} holds fractions ({} for cell \"{}\"), so it names no batches.\n  Give a column of text, \
                     categories or whole numbers.",
                    values[at], cells[at]
                )));
            }
        }
        Ok(values)
    }

    /// A column as text, where there is one.
    pub fn text(&self, name: &str) -> Result<Option<Vec<Option<String>>>> {
        if !self.group.link_exists(name) {
            return Ok(None);
        }
        self.column(name).map(|column| Some(column.values))
    }

    /// The index where it is the variable-length text that anndata writes since 0.8.
    fn text_index(&self) -> Result<Option<Values<'_>>> {
        if !matches!(self.group.loc_type_by_name(&self.index), Ok(LocationType::Dataset)) {
            return Ok(None);
        }
        let values = Values::open(self.source, &self.group, self.name, &self.index)?;
        let known = encoding(&values.dataset).is_some_and(|e| e.kind == "string-array" && e.version == "0.2.0");
        let descriptor = values.dataset.dtype().ok().and_then(|dtype| descriptor(&dtype));
        Ok((known && descriptor == Some(TypeDescriptor::VarLenUnicode)).then_some(values))
    }

    /// The columns that carry an encoding, as anndata writes since 0.8, in the order of the table, without those of earlier calls.
    pub fn encoded_columns(&self) -> Vec<String> {
        let order = attributes(&self.group, "column-order");
        let mut columns = self.columns();
        let ours = attributes(&self.group, OURS);
        columns.retain(|name| !ours.contains(name) && column_encoding(&self.group, name).is_some());
        let place = |name: &String| order.iter().position(|other| other == name).unwrap_or(order.len());
        columns.sort_by_key(place);
        columns
    }

    /// The columns of earlier calls, in the order of the table.
    pub fn our_columns(&self) -> Vec<String> {
        attributes(&self.group, OURS)
    }

    /// A column with its type.
    pub fn typed(&self, name: &str) -> Result<crate::fit::Column> {
        use crate::fit::Column as Typed;
        let values = self.column(name)?.values;
        let of_group = |name| self.group.group(name).and_then(|group| group.dataset("values"));
        let stored = self.group.dataset(name).or_else(|_| of_group(name)).ok().and_then(|dataset| Number::of(&dataset));
        fn parsed<T: std::str::FromStr>(values: &[Option<String>]) -> Vec<Option<T>> {
            values.iter().map(|value| value.as_ref().and_then(|value| value.parse().ok())).collect()
        }
        Ok(match stored {
            Some(number) if number.is_float() => {
                Typed::Real(parsed(&values).into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
            }
            Some(Number::Bool) => {
                Typed::Logical(values.iter().map(|value| value.as_ref().map(|value| value == "TRUE")).collect())
            }
            Some(_) => Typed::Integer(parsed(&values)),
            None => Typed::Text(values),
        })
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The name of the index column.
    pub fn index_name(&self) -> &str {
        &self.index
    }

    pub fn columns(&self) -> Vec<String> {
        let mut columns = self.group.member_names().unwrap_or_default();
        columns.retain(|name| *name != self.index && name != "__categories");
        columns
    }

    fn column(&self, name: &str) -> Result<Column> {
        read_column(self.source, &self.group, self.name, name)
    }
}

/// The first name that stands at an earlier place, too: both places. Sorting short hashes is faster than a table of names,
/// and goes on all threads of the current pool.
pub(crate) fn first_twice(names: &[String]) -> Option<(usize, usize)> {
    let mut keys: Vec<u64> = names.par_iter().enumerate().map(|(place, name)| key(place, name)).collect();
    let same = |a: usize, b: usize| -> std::result::Result<bool, ()> { Ok(names[a] == names[b]) };
    first_twice_by(&mut keys, same).unwrap_or_default()
}

/// The hash of a name in the upper half, its place in the lower, which is below 2^31.
fn key(place: usize, name: &str) -> u64 {
    (hash(name) << 32) | place as u64
}

/// As [`first_twice`], where `same` looks at the names of two places.
fn first_twice_by<E>(
    keys: &mut [u64],
    mut same: impl FnMut(usize, usize) -> std::result::Result<bool, E>,
) -> std::result::Result<Option<(usize, usize)>, E> {
    keys.par_sort_unstable();
    let place = |key: u64| (key & u64::from(u32::MAX)) as usize;
    let mut found: Option<(usize, usize)> = None;
    for group in keys.chunk_by(|a, b| a >> 32 == b >> 32).filter(|group| group.len() > 1) {
        'group: for at in 1..group.len() {
            for first in &group[..at] {
                let (first, again) = (place(*first), place(group[at]));
                if same(first, again)? {
                    if found.is_none_or(|(_, earliest)| again < earliest) {
                        found = Some((first, again));
                    }
                    break 'group;
                }
            }
        }
    }
    Ok(found)
}

/// The index of a frame that is never held as a whole, if it is a plain vector of text.
pub struct Names<'a> {
    frame: &'a Frame<'a>,
    kept: Kept<'a>,
}

enum Kept<'a> {
    /// In the file; the keys of the names seen so far.
    InFile(Values<'a>, Vec<u64>),
    /// Already checked.
    Whole(Vec<String>),
}

impl<'a> Names<'a> {
    pub fn open(frame: &'a Frame<'a>) -> Result<Self> {
        let kept = match frame.text_index()? {
            Some(values) => {
                frame.check_length(values.len()?)?;
                Kept::InFile(values, vec![])
            }
            None => Kept::Whole(frame.index()?),
        };
        Ok(Names { frame, kept })
    }

    pub fn len(&self) -> Result<usize> {
        match &self.kept {
            Kept::InFile(values, _) => values.len(),
            Kept::Whole(names) => Ok(names.len()),
        }
    }

    pub fn read(&self, range: Range<usize>) -> Result<Vec<String>> {
        match &self.kept {
            Kept::InFile(values, _) => values.strings_in(range),
            Kept::Whole(names) => Ok(names[range].to_vec()),
        }
    }

    /// Reads the next names and checks that they are there; see [`Names::check_unique`].
    pub fn next(&mut self, range: Range<usize>) -> Result<Vec<String>> {
        let names = self.read(range.clone())?;
        if let Kept::InFile(_, keys) = &mut self.kept {
            self.frame.check_present(range.start, &names)?;
            keys.extend(names.iter().zip(range).map(|(name, place)| key(place, name)));
        }
        Ok(names)
    }

    /// After all were read: that each stands once.
    pub fn check_unique(&mut self) -> Result<()> {
        let Kept::InFile(values, keys) = &mut self.kept else { return Ok(()) };
        let mut keys = std::mem::take(keys);
        let name = |place: usize| Ok(values.strings_in(place..place + 1)?.swap_remove(0));
        match first_twice_by(&mut keys, |a, b| Ok(name(a)? == name(b)?))? {
            Some((first, again)) => Err(self.frame.twice(&name(again)?, first, again)),
            None => Ok(()),
        }
    }

    /// The names, where they are not in the file as anndata writes text now.
    pub fn whole(&self) -> Option<&[String]> {
        match &self.kept {
            Kept::InFile(..) => None,
            Kept::Whole(names) => Some(names),
        }
    }
}

/// 32 bits that tell nearly all names apart.
fn hash(name: &str) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = name.len() as u64;
    for bytes in name.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        hash ^= hash >> 32;
    }
    hash.wrapping_mul(ODD) >> 32
}

/// The encoding of a column.
fn column_encoding(group: &Group, name: &str) -> Option<String> {
    let encoding = match group.loc_type_by_name(name).ok()? {
        LocationType::Group => encoding(&*group.group(name).ok()?)?,
        LocationType::Dataset => encoding(&*group.dataset(name).ok()?)?,
        _ => return None,
    };
    Some(encoding.kind)
}

fn unknown(source: Source, what: &str, kind: &str, expected: &str) -> crate::Error {
    source.format_in(format!(
        "{what} is encoded as \"{kind}\" where kaichi 0.1 reads {expected}.\n  Write the file again with anndata."
    ))
}

const COLUMN: &str = "text, numbers, booleans and categories";

fn read_column(source: Source, parent: &Group, parent_name: &str, name: &str) -> Result<Column> {
    let what = format!("{parent_name}/{name}");
    let Ok(LocationType::Group) = parent.loc_type_by_name(name) else {
        return read_dataset(source, Values::open(source, parent, parent_name, name)?);
    };
    let group = parent.group(name).map_err(|error| source.damaged(&what, error))?;
    let Some(encoding) = encoding(&group) else {
        return Err(unknown(source, &what, "", COLUMN));
    };
    if encoding.is(source, &what, "categorical", &["0.2.0"])? {
        let codes = Values::open(source, &group, &what, "codes")?;
        // Links may go in circles: categories are not themselves categorical.
        let inner = group.group("categories").ok().and_then(|inner| self::encoding(&inner));
        if inner.is_some_and(|inner| inner.kind == "categorical") {
            return Err(unknown(source, &format!("{what}/categories"), "categorical", "text, numbers and booleans"));
        }
        let categories = read_column(source, &group, &what, "categories")?;
        return decode(&codes, categories);
    }
    for kind in ["nullable-integer", "nullable-boolean", "nullable-string-array"] {
        if encoding.is(source, &what, kind, &["0.1.0"])? {
            let mut column = read_dataset(source, Values::open(source, &group, &what, "values")?)?;
            let mask = Values::open(source, &group, &what, "mask")?.mask()?;
            if mask.len() != column.values.len() {
                return Err(source.format_in(format!(
                    "{what} has {} values and a mask of {}.\n  The file may be damaged. Write it again.",
                    column.values.len(),
                    mask.len()
                )));
            }
            for (value, missing) in column.values.iter_mut().zip(mask) {
                if missing {
                    *value = None;
                }
            }
            return Ok(column);
        }
    }
    Err(unknown(source, &what, &encoding.kind, COLUMN))
}

fn read_dataset(source: Source, values: Values) -> Result<Column> {
    // anndata 0.7 stores codes as the column, and a reference to their categories.
    if let Ok(attribute) = values.dataset.attr("categories") {
        let what = format!("the categories of {}", values.what);
        let categories = attribute
            .read_scalar::<ObjectReference1>()
            .and_then(|reference| values.dataset.dereference(&reference))
            .map_err(|error| source.damaged(&what, error))?;
        let ReferencedObject::Dataset(categories) = categories else {
            return Err(source.format_in(format!("{what} are no dataset.\n  Write the file again with anndata.")));
        };
        return decode(&values, read_plain(&Values::of(source, what, categories)?)?);
    }
    if let Some(encoding) = encoding(&values.dataset) {
        let known = encoding.is(source, &values.what, "array", &["0.2.0"])?
            || encoding.is(source, &values.what, "string-array", &["0.2.0"])?;
        if !known {
            return Err(unknown(source, &values.what, &encoding.kind, COLUMN));
        }
    }
    read_plain(&values)
}

fn read_plain(values: &Values) -> Result<Column> {
    let Ok(number) = values.number() else {
        return Ok(Column { values: values.strings()?.into_iter().map(Some).collect(), float: false });
    };
    let float = number.is_float();
    let text = values.printed()?;
    Ok(Column { values: text.into_iter().map(|text| (!float || text != "NaN").then_some(text)).collect(), float })
}

fn decode(codes: &Values, categories: Column) -> Result<Column> {
    let n = categories.values.len();
    let values = codes.integers(|position, code| match code {
        -1.0 => Ok(None),
        code if code >= 0.0 && (code as usize) < n => Ok(categories.values[code as usize].clone()),
        code => Err(codes.source.format_in(format!(
            "value {} of {} is code {code}, but there are {n} categories.\n  The file may be damaged. Write it again.",
            position + 1,
            codes.what
        ))),
    })?;
    Ok(Column { values, float: categories.float })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_comes_again_is_found() {
        let mut names: Vec<String> = (0..200_000).map(|i| format!("ACGT-{i}")).collect();
        assert_eq!(first_twice(&names), None);
        names[150_000] = names[7].clone();
        assert_eq!(first_twice(&names), Some((7, 150_000)));
        names[140_000] = names[130_000].clone();
        names[199_999] = names[130_000].clone();
        assert_eq!(first_twice(&names), Some((130_000, 140_000)));
        assert_eq!(first_twice(&["a", "a\0", "b", "a"].map(String::from)), Some((0, 3)));
    }

    /// Names whose hashes agree are still compared.
    #[test]
    fn equal_hashes_are_no_equal_names() {
        let mut of_hash = std::collections::HashMap::new();
        let twins = (0..).find_map(|i: u32| {
            let name = i.to_string();
            of_hash.insert(hash(&name), name.clone()).map(|other| [other, name])
        });
        let [a, b] = twins.unwrap_or_default();
        assert!(a != b && hash(&a) == hash(&b));
        assert_eq!(first_twice(&[a.clone(), b.clone(), "x".into()]), None);
        assert_eq!(first_twice(&[a, b.clone(), b]), Some((1, 2)));
    }
}
