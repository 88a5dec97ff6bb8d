//! obs and var: the index, and one column.
use hdf5::{Group, LocationType, ObjectReference1, ReferencedObject};
use rayon::prelude::*;

use super::values::{attribute, encoding, quoted, Source, Values};
use super::{too_many, MOST};
use crate::Result;

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
    pub fn open(source: Source<'a>, file: &hdf5::File, name: &'static str, row: &'static str) -> Result<Self> {
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
        let stated = attribute(&group, "_index");
        let index =
            stated.or_else(|| ["_index", "index"].map(str::to_owned).into_iter().find(|name| group.link_exists(name)));
        let Some(index) = index else {
            return Err(source.format_in(format!(
                "{name} does not say which column names the {row}s (attribute _index).\n  Write the file again with anndata."
            )));
        };
        Ok(Frame { source, name, row, group, index })
    }

    /// The names of the rows: present, not empty, and each once.
    pub fn index(&self) -> Result<Vec<String>> {
        let source = self.source;
        let column = self.column(&self.index)?.values;
        if column.is_empty() {
            return Err(source.counts(format!("{} has no rows: there are no {}s.", self.name, self.row)));
        }
        if column.len() > MOST {
            return Err(too_many(source, self.name, column.len()));
        }
        let mut names = Vec::with_capacity(column.len());
        for (position, name) in column.into_iter().enumerate() {
            match name {
                Some(name) if !name.is_empty() => names.push(name),
                _ => {
                    let (row, position) = (self.row, position + 1);
                    return Err(source.names(format!(
                        "{row} {position} has no name ({}/{} is empty there). Every {row} needs a name.",
                        self.name, self.index
                    )));
                }
            }
        }
        if let Some((first, again)) = first_twice(&names) {
            return Err(source.names(format!(
                "the {} name \"{}\" stands more than once in {} (rows {} and {}).\n  Make the names unique, \
                 for example with {}_names_make_unique() of anndata.",
                self.row,
                names[again],
                self.name,
                first + 1,
                again + 1,
                self.name
            )));
        }
        Ok(names)
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

    fn columns(&self) -> Vec<String> {
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
fn first_twice(names: &[String]) -> Option<(usize, usize)> {
    // The upper half is of the hash, the lower the place, which is below 2^31.
    let mut keys: Vec<u64> =
        names.par_iter().enumerate().map(|(place, name)| hash(name) << 32 | place as u64).collect();
    keys.par_sort_unstable();
    let place = |key: u64| (key & u64::from(u32::MAX)) as usize;
    keys.chunk_by(|a, b| a >> 32 == b >> 32)
        .filter(|group| group.len() > 1)
        .filter_map(|group| {
            let same = |again: &&u64, first: &&u64| names[place(**again)] == names[place(**first)];
            let (at, again) = (1..group.len())
                .map(|at| (at, &group[at]))
                .find(|(at, again)| group[..*at].iter().any(|first| same(again, &first)))?;
            let first = group[..at].iter().find(|first| same(&again, first))?;
            Some((place(*first), place(*again)))
        })
        .min_by_key(|&(_, again)| again)
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
