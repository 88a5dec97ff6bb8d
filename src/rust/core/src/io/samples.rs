//! Several files that are one screen: named one by one, in a sample sheet, or found in the folder of a run or of an archive. Cells are
//! named `sample_barcode`.
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::guide_table::GuideTable;
use super::h5ad::frame::first_twice;
use super::h5ad::values::{quoted, quoted_to, Source};
use super::{foreign, mtx, read_one, table, text, words, GuideFile, ReadOptions};
use crate::{Error, Result};

/// One file of a screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub sample: String,
    pub path: PathBuf,
    /// What the sheet says of the sample.
    pub columns: Vec<(String, Option<String>)>,
}

/// The samples of a screen, whose cells follow each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples {
    /// Of each sample.
    pub n_cells: Vec<usize>,
    /// `sample`, and what the sample sheet says, one value for each sample.
    pub columns: GuideTable,
}

impl Samples {
    /// The values of the samples as values of their cells.
    pub fn of_cells<T: Clone>(&self, values: &[T]) -> Vec<T> {
        values.iter().zip(&self.n_cells).flat_map(|(value, &n)| std::iter::repeat_n(value.clone(), n)).collect()
    }

    /// The values of a column, if it is there.
    pub fn column(&self, name: &str) -> Option<&[Option<String>]> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, values)| &values[..])
    }
}

/// What a path stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A file or folder of counts, with what is to be said of where it was found.
    One(PathBuf, Option<String>),
    Several(Vec<Input>),
}

/// The column of the cells that tells their sample.
pub const SAMPLE: &str = "sample";
/// Columns of calls.
const RESERVED: &[&str] = &[
    "cell_barcode",
    "guide_id",
    "guide_identity",
    "umi_count",
    "assignment_confidence",
    "is_unassigned",
    "is_multi_infected",
    "n_guides_detected",
    "set_probability",
    "target",
];
const PATHS: &[&str] = &["path", "file", "filename", "file_name", "folder", "directory", "counts"];
const SAMPLES: &[&str] = &["sample", "sample_id", "sample_name", "name", "lane", "library", "library_id", "id"];

/// What lies at the path: a sample sheet, the output of a run of Cell Ranger or of several, a folder of triplets as GEO has them, or
/// counts.
pub fn find(path: &Path) -> Result<Found> {
    if path.is_dir() {
        return find_in(path);
    }
    if path.is_file() && !mtx::is(Source(path))? && table::is(Source(path))? {
        if let Some(inputs) = sheet(path)? {
            return Ok(Found::Several(inputs));
        }
    }
    Ok(Found::One(path.to_owned(), None))
}

fn find_in(folder: &Path) -> Result<Found> {
    let here = || Ok(Found::One(folder.to_owned(), None));
    if foreign::folder(folder).is_some() {
        return here();
    }
    for run in [folder.to_owned(), folder.join("outs")] {
        let samples = subfolders(&run.join("per_sample_outs"));
        let inputs: Vec<Input> = samples.iter().filter_map(|sample| input(sample, &counts_in(sample)?)).collect();
        if !inputs.is_empty() {
            return Ok(Found::Several(inputs));
        }
        if let Some(path) = counts_in(&run) {
            let name = text::file_name(&path);
            return Ok(Found::One(
                path,
                Some(format!("Reading \"{name}\" of the Cell Ranger run in \"{}\".", folder.display())),
            ));
        }
    }
    let triplets = mtx::triplets(folder)?;
    if triplets.len() > 1 {
        let named = triplets.into_iter().map(|(sample, path)| Input { sample, path, columns: vec![] });
        return Ok(Found::Several(named.collect()));
    }
    if !triplets.is_empty() || mtx::find_one(folder) {
        return here();
    }
    // A folder of runs.
    let runs = subfolders(folder);
    let counts = |run: &PathBuf| counts_in(&run.join("outs")).or_else(|| counts_in(run));
    let inputs: Vec<Input> = runs.iter().filter_map(|run| input(run, &counts(run)?)).collect();
    match inputs.len() {
        0 => here(),
        _ => Ok(Found::Several(inputs)),
    }
}

fn input(sample: &Path, path: &Path) -> Option<Input> {
    let sample = sample.file_name()?.to_string_lossy().into_owned();
    Some(Input { sample, path: path.to_owned(), columns: vec![] })
}

/// The folders in a folder, sorted by name.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort_unstable();
    found
}

/// The counts of the cells of a run of Cell Ranger, or of a sample of it.
fn counts_in(run: &Path) -> Option<PathBuf> {
    let names = ["filtered_feature_bc_matrix", "sample_filtered_feature_bc_matrix"];
    [run.to_owned(), run.join("count")].into_iter().find_map(|folder| {
        names.iter().find_map(|name| {
            let (file, matrix) = (folder.join(format!("{name}.h5")), folder.join(name));
            let has_matrix = || ["matrix.mtx.gz", "matrix.mtx"].iter().any(|name| matrix.join(name).is_file());
            file.is_file().then_some(file).or_else(|| has_matrix().then_some(matrix.clone()))
        })
    })
}

/// The files of a sample sheet; none of a table that is none. Paths start at the folder of the sheet.
fn sheet(path: &Path) -> Result<Option<Vec<Input>>> {
    let source = Source(path);
    let Some((header, rows)) = table::sheet(source, PATHS)? else { return Ok(None) };
    let Some(at) = words::find(&header, PATHS) else { return Ok(None) };
    let sample = words::find(&header, SAMPLES).filter(|&sample| sample != at);
    let Some(sample) = sample else {
        return Err(source.format(format!(
            "has a column \"{}\" but none that names the samples. Its columns: {}.\n  Give it a column \"sample\".",
            header[at],
            quoted(&header)
        )));
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let inputs = rows.iter().map(|row| {
        let columns = header
            .iter()
            .zip(row)
            .enumerate()
            .filter(|(column, (name, _))| ![at, sample].contains(column) && !name.is_empty());
        let columns = columns.map(|(_, (name, value))| (name.clone(), (!value.is_empty()).then(|| value.clone())));
        Input { sample: row[sample].clone(), path: folder.join(&row[at]), columns: columns.collect() }
    });
    Ok(Some(inputs.collect()))
}

/// Names for files that have none: what their paths have of their own, from the end.
pub fn names(paths: &[PathBuf]) -> Result<Vec<String>> {
    let stem = |path: &PathBuf| {
        let name = text::file_name(path);
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned())
    };
    let part = |path: &PathBuf, up: usize| match up {
        0 => stem(path),
        up => path
            .components()
            .rev()
            .nth(up)
            .map_or(String::new(), |part| part.as_os_str().to_string_lossy().into_owned()),
    };
    let deepest = paths.iter().map(|path| path.components().count()).max().unwrap_or(0);
    (0..deepest)
        .map(|up| paths.iter().map(|path| part(path, up)).collect::<Vec<String>>())
        .find(|names| twice(names).is_none() && !names.iter().any(String::is_empty))
        .ok_or_else(|| {
            let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            Error::Argument(format!(
                "The files {} have no names of their own. Give each the name of its sample.",
                quoted(&shown)
            ))
        })
}

fn twice(names: &[String]) -> Option<&String> {
    let mut seen = HashSet::new();
    names.iter().find(|name| !seen.insert(name.as_str()))
}

/// The screen of several files. Guides that differ between them are an error, unless `union` takes all.
pub fn read(inputs: &[Input], options: &ReadOptions) -> Result<GuideFile> {
    let samples: Vec<String> = inputs.iter().map(|input| input.sample.clone()).collect();
    if let Some(name) = twice(&samples) {
        return Err(Error::Argument(format!("Two samples are named \"{name}\". Give each a name of its own.")));
    }
    if samples.iter().any(String::is_empty) {
        return Err(Error::Argument("A sample has no name. Give each the name of its sample.".into()));
    }
    for (name, value) in [("features", options.features), ("barcodes", options.barcodes)] {
        if value.is_some() {
            return Err(Error::Argument(format!(
                "`{name}` is for one file, and there are several. Read each by itself, or put its names beside it."
            )));
        }
    }
    if let Some((name, _)) =
        inputs.iter().flat_map(|input| &input.columns).find(|(name, _)| RESERVED.contains(&name.as_str()))
    {
        return Err(Error::Names(format!(
            "The sample sheet has a column \"{name}\", which calls have themselves. Give it another name."
        )));
    }
    // All guides of a library are known by its table.
    let union = options.union || options.guides.is_some();
    let mut whole = GuideFile { indptr: vec![0], ..GuideFile::default() };
    let mut places: HashMap<String, i32> = HashMap::new();
    let mut known = Samples { n_cells: vec![], columns: vec![(SAMPLE.to_owned(), vec![])] };
    let mut batch: Option<Vec<String>> = None;
    for (n, input) in inputs.iter().enumerate() {
        let path = match find(&input.path)? {
            Found::One(path, _) => path,
            Found::Several(_) => {
                return Err(Source(&input.path).file("holds several samples itself. Give each of them by its own path."))
            }
        };
        // The sample is the batch only where it is asked for.
        let by_sample =
            options.batch == Some(SAMPLE) || input.columns.iter().any(|(name, _)| Some(name.as_str()) == options.batch);
        let own = ReadOptions { batch: options.batch.filter(|_| !by_sample), ..*options };
        let file = read_one(&path, &own)?;
        let guides = places_of(&mut whole.guide_names, &mut places, &file.guide_names, n == 0 || union).map_err(|(lacks, has)| {
            let mut words = vec![];
            if !lacks.is_empty() {
                words.push(format!("lacks {}", quoted_to(5, &lacks)));
            }
            if !has.is_empty() {
                words.push(format!("has {} more", quoted_to(5, &has)));
            }
            Error::Names(format!(
                "The guides of the sample \"{}\" are not those of \"{}\": it {}.\n  If all are of one library, take them all: guides = \
                 \"union\".",
                input.sample,
                inputs[0].sample,
                words.join(" and ")
            ))
        })?;
        append(&mut whole, &file, &guides)?;
        let named = |cell: &String| [&input.sample, "_", cell].concat();
        whole.cell_names.par_extend(file.cell_names.par_iter().map(named));
        let described = merge_facts(std::mem::take(&mut whole.facts), &file.facts, &guides, whole.guide_names.len());
        whole.facts = described;
        known.n_cells.push(file.cell_names.len());
        let sample = (SAMPLE.to_owned(), Some(input.sample.clone()));
        for (name, value) in std::iter::once(&sample).chain(&input.columns) {
            let at = known.columns.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                known.columns.push((name.clone(), vec![]));
                known.columns.len() - 1
            });
            // Samples before may lack the column.
            known.columns[at].1.resize(n, None);
            known.columns[at].1.push(value.clone());
        }
        known.columns.iter_mut().for_each(|(_, values)| values.resize(n + 1, None));
        if let Some(own) = file.batch {
            batch.get_or_insert_with(Vec::new).extend(own);
        }
        for choice in file.choices {
            if !whole.choices.contains(&choice) {
                whole.choices.push(choice);
            }
        }
    }
    // "a" and "b_c" would be "a_b" and "c".
    if samples.iter().any(|long| samples.iter().any(|short| long.starts_with(&format!("{short}_")))) {
        if let Some((first, _)) = first_twice(&whole.cell_names) {
            return Err(Error::Names(format!(
                "Cells of two samples would both be named \"{}\". Give the samples names of which none starts with another.",
                whole.cell_names[first]
            )));
        }
    }
    whole.choices.push(format!(
        "Taking {} files as one screen of {} cells, named by sample and barcode, as \"{}\".",
        inputs.len(),
        whole.cell_names.len(),
        whole.cell_names.first().map_or("", String::as_str)
    ));
    if let Some((name, values)) = options.batch.and_then(|name| known.column(name).map(|values| (name, values))) {
        let given: Option<Vec<String>> = values.iter().cloned().collect();
        let given = given.ok_or_else(|| {
            Error::Batch(format!("The column \"{name}\" of the samples is empty for some. Give every sample a batch."))
        })?;
        batch = Some(known.of_cells(&given));
    }
    whole.batch = batch;
    whole.samples = known;
    Ok(whole)
}

/// The guides that a file lacks, and those that it has more than the others.
type Differ = (Vec<String>, Vec<String>);

/// The place of each of these guides among all. Those that are new are added where they may be.
fn places_of(
    all: &mut Vec<String>,
    places: &mut HashMap<String, i32>,
    guides: &[String],
    may_add: bool,
) -> std::result::Result<Vec<i32>, Differ> {
    if !may_add {
        let own: HashSet<&String> = guides.iter().collect();
        let lacks: Vec<String> = all.iter().filter(|guide| !own.contains(guide)).cloned().collect();
        let has: Vec<String> = guides.iter().filter(|guide| !places.contains_key(*guide)).cloned().collect();
        if !lacks.is_empty() || !has.is_empty() {
            return Err((lacks, has));
        }
    }
    let place = |guide: &String| {
        *places.entry(guide.clone()).or_insert_with(|| {
            all.push(guide.clone());
            all.len() as i32 - 1
        })
    };
    Ok(guides.iter().map(place).collect())
}

/// The rows of a file below those before, with the places that its guides have among all.
fn append(whole: &mut GuideFile, file: &GuideFile, guides: &[i32]) -> Result<()> {
    let before = whole.counts.len();
    let too_many = |n: usize, what: &str| {
        Error::Counts(format!(
            "{n} {what} are more than the 2147483647 that kaichi can hold. Give fewer files at once."
        ))
    };
    if before + file.counts.len() > i32::MAX as usize {
        return Err(too_many(before + file.counts.len(), "counts"));
    }
    whole.indptr.extend(file.indptr[1..].iter().map(|&at| at + before as i32));
    // Of files with one order of guides nothing moves.
    let in_order = guides.windows(2).all(|pair| pair[0] < pair[1]);
    whole.guides.extend(file.guides.iter().map(|&guide| guides[guide as usize]));
    whole.counts.extend_from_slice(&file.counts);
    if !in_order {
        for pair in file.indptr.windows(2) {
            let range = before + pair[0] as usize..before + pair[1] as usize;
            let mut row: Vec<(i32, f64)> = range.clone().map(|at| (whole.guides[at], whole.counts[at])).collect();
            row.sort_unstable_by_key(|&(guide, _)| guide);
            for (at, (guide, count)) in range.zip(row) {
                (whole.guides[at], whole.counts[at]) = (guide, count);
            }
        }
    }
    Ok(())
}

/// What the files say of all guides: of each the first that says something.
fn merge_facts(mut all: GuideTable, own: &GuideTable, guides: &[i32], n: usize) -> GuideTable {
    all.iter_mut().for_each(|(_, values)| values.resize(n, None));
    for (name, values) in own {
        let at = all.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            all.push((name.clone(), vec![None; n]));
            all.len() - 1
        });
        for (&guide, value) in guides.iter().zip(values) {
            let known = &mut all[at].1[guide as usize];
            if known.is_none() {
                known.clone_from(value);
            }
        }
    }
    all
}

/// The number at the end of each barcode, by which cellranger aggr tells the libraries.
pub const SUFFIX: &str = "barcode_suffix";

pub fn suffixes(path: &Path, cells: &[String]) -> Result<Vec<String>> {
    let suffix = |cell: &String| {
        let (_, end) = cell.rsplit_once('-')?;
        (!end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit())).then(|| end.to_owned())
    };
    let found = cells.iter().map(|cell| suffix(cell).ok_or(cell));
    found.collect::<std::result::Result<_, _>>().map_err(|cell| {
        Source(path).batch(format!(
            "the cell \"{cell}\" has no number at its end, as cellranger aggr writes it (AAAC-2).\n  Give the batch of each cell itself."
        ))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_what_they_have_of_their_own() {
        let of = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["a.h5", "x/b.h5ad"]).unwrap(), ["a", "b"]);
        assert_eq!(of(&["s1/outs/f.h5", "s2/outs/f.h5"]).unwrap(), ["s1", "s2"]);
        assert!(of(&["a.h5", "a.h5"]).is_err());
    }
}
