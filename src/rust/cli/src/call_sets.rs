//! Calls of any origin, as sets of guides per cell, and how far two agree.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kaichi_core::io::h5ad;
use kaichi_core::{Error, Result};

/// Cells with a call, by name, and their guides.
pub type CallSet = BTreeMap<String, BTreeSet<String>>;

const PER_CELL: &str = "protospacer_calls_per_cell.csv";

/// The calls, and what its reader says that it chose.
pub fn read(path: &Path) -> Result<(CallSet, Vec<String>)> {
    if path.is_dir() {
        let inner = path.join(PER_CELL);
        return match inner.is_file() {
            true => Ok((read_csv(&inner)?, vec![])),
            false => Err(Error::File(format!("The folder \"{}\" has no {PER_CELL} of Cell Ranger.", path.display()))),
        };
    }
    if h5ad::is(path, None) {
        let file = h5ad::scores::read_calls(path)?;
        let cells = file.cell_names.into_iter().zip(file.indptr.windows(2));
        let guides = |range: &[i32]| {
            let at = range[0] as usize..range[1] as usize;
            file.guides[at].iter().map(|&guide| file.guide_names[guide as usize].clone()).collect::<BTreeSet<_>>()
        };
        let calls = cells.map(|(cell, range)| (cell, guides(range))).filter(|(_, guides)| !guides.is_empty()).collect();
        return Ok((calls, file.choices));
    }
    Ok((read_csv(path)?, vec![]))
}

fn read_csv(path: &Path) -> Result<CallSet> {
    let shown = path.display();
    let broken = |what: String| Error::Format(format!("The file \"{shown}\" {what}."));
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::File(format!("The file \"{shown}\" does not exist. Check the path and the working directory."))
        }
        _ => Error::File(format!("The file \"{shown}\" cannot be read: {error}.")),
    })?;
    let mut csv = csv::Reader::from_reader(file);
    let header = csv.headers().map_err(|error| broken(format!("is no CSV of calls: {error}")))?.clone();
    let column = |names: &[&str]| header.iter().position(|name| names.contains(&name));
    let cell = column(&["cell_barcode", "cell"]);
    let guide = column(&["feature_call", "guide_id", "gRNA", "guide_identity"]);
    let (Some(cell), Some(guide)) = (cell, guide) else {
        return Err(broken(format!(
            "is no table of calls: it needs the columns cell_barcode (or cell) and guide_id (or gRNA, feature_call), but has {}",
            header.iter().collect::<Vec<_>>().join(", ")
        )));
    };
    let joined = header.get(guide) == Some("feature_call");
    let n_guides = column(&["n_guides_detected"]);
    let mut calls = CallSet::new();
    for record in csv.records() {
        let record = record.map_err(|error| broken(format!("is no CSV: {error}")))?;
        let (name, text) = (&record[cell], &record[guide]);
        if n_guides.is_some_and(|at| !matches!(&record[at], "" | "0" | "1")) {
            return Err(broken(format!(
                "has one row per cell, and cell \"{name}\" has more guides than it names. Give the pairs instead, an .h5ad or a .csv of \
                 kaichi assign --output"
            )));
        }
        if text.is_empty() {
            continue;
        }
        let guides = calls.entry(name.to_owned()).or_default();
        match joined {
            true => guides.extend(text.split('|').map(str::to_owned)),
            false => drop(guides.insert(text.to_owned())),
        }
    }
    Ok(calls)
}

/// How many there are in A, in B, and in both.
#[derive(Debug, Default, PartialEq)]
pub struct Overlap {
    pub a: usize,
    pub b: usize,
    pub both: usize,
}

impl Overlap {
    pub fn either(&self) -> usize {
        self.a + self.b - self.both
    }

    /// NaN of nothing.
    pub fn jaccard(&self) -> f64 {
        self.both as f64 / self.either() as f64
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Agreement {
    pub cells: Overlap,
    pub pairs: Overlap,
    /// Cells with a call in both: those with the same guides, with some the same, and with none.
    pub same: usize,
    pub some: usize,
    pub none: usize,
}

pub fn agreement(a: &CallSet, b: &CallSet) -> Agreement {
    let n_pairs = |calls: &CallSet| calls.values().map(BTreeSet::len).sum();
    let mut found = Agreement {
        cells: Overlap { a: a.len(), b: b.len(), both: 0 },
        pairs: Overlap { a: n_pairs(a), b: n_pairs(b), both: 0 },
        ..Agreement::default()
    };
    for (cell, guides) in a {
        let Some(others) = b.get(cell) else { continue };
        let shared = guides.intersection(others).count();
        found.cells.both += 1;
        found.pairs.both += shared;
        match shared {
            0 => found.none += 1,
            n if n == guides.len() && n == others.len() => found.same += 1,
            _ => found.some += 1,
        }
    }
    found
}

/// The pairs that only one has: cell, guide and which.
pub fn differences<'a>(a: &'a CallSet, b: &'a CallSet) -> Vec<[&'a str; 3]> {
    let none = BTreeSet::new();
    let cells: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut rows = vec![];
    for cell in cells {
        let of = |calls: &'a CallSet| calls.get(cell);
        let (left, right) = (of(a), of(b));
        let only = |x: Option<&'a BTreeSet<String>>, y: Option<&'a BTreeSet<String>>, which: &'static str| {
            x.into_iter()
                .flatten()
                .filter(|guide| !y.unwrap_or(&none).contains(*guide))
                .map(|guide| [cell.as_str(), guide.as_str(), which])
                .collect::<Vec<_>>()
        };
        rows.extend(only(left, right, "a"));
        rows.extend(only(right, left, "b"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(pairs: &[(&str, &str)]) -> CallSet {
        let mut calls = CallSet::new();
        for (cell, guide) in pairs {
            calls.entry(cell.to_string()).or_default().insert(guide.to_string());
        }
        calls
    }

    #[test]
    fn agreement_is_counted_by_cell_and_by_pair() {
        let a = calls(&[("1", "g"), ("1", "h"), ("2", "g"), ("3", "g"), ("4", "i")]);
        let b = calls(&[("1", "h"), ("1", "g"), ("2", "g"), ("2", "h"), ("3", "h"), ("5", "i")]);
        let found = agreement(&a, &b);
        assert_eq!(found.cells, Overlap { a: 4, b: 4, both: 3 });
        assert_eq!(found.pairs, Overlap { a: 5, b: 6, both: 3 });
        assert_eq!((found.same, found.some, found.none), (1, 1, 1));
        assert_eq!(found.pairs.jaccard(), 3.0 / 8.0);
        assert_eq!(
            differences(&a, &b),
            [["2", "h", "b"], ["3", "g", "a"], ["3", "h", "b"], ["4", "i", "a"], ["5", "i", "b"]]
        );
    }
}
