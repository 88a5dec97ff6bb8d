//! Counts in a CSV or TSV, gzipped or not: wide, either way round, or long, with a row for each cell and guide. BD Rhapsody's
//! `_RSEC_MolsPerCell.csv` and `_Expression_Data.st` are one of each. Rows are streamed; only counts above 0 are kept.
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use csv::ByteRecord;

use super::entries::{count, rows, Entry};
use super::features::{self, are_barcodes, are_genes, is_leftover, Described};
use super::h5ad::frame::first_twice;
use super::h5ad::values::{quoted, quoted_to, Source};
use super::samples::Samples;
use super::text::{self, are_row_numbers, cut_short, field, file_name};
use super::words::{self, bare, GUIDE_COLUMNS};
use super::{refuse, refuse_names, GuideFile, Orientation, ReadOptions};
use crate::run::check_reading;
use crate::Result;

/// Rows between two looks at whether the user wants to stop.
const ROWS: usize = 256;
/// How much of a file is looked at to tell whether it is a table.
const HEAD: u64 = 1 << 16;

/// Whether the file is text whose first line has several fields.
pub fn is(source: Source) -> Result<bool> {
    let mut head = vec![];
    if text::stream(source)?.take(HEAD).read_to_end(&mut head).is_err() || head.contains(&0) {
        return Ok(false);
    }
    let head = field(&head);
    let mut lines = head.lines().filter(|line| !is_comment(line.as_bytes()));
    Ok(lines.next().and_then(separator).is_some() && lines.next().is_some())
}

fn is_comment(line: &[u8]) -> bool {
    line.first().is_none_or(|&byte| byte == b'#') || line.iter().all(u8::is_ascii_whitespace)
}

/// What separates the fields; a blank where R wrote names in quotes.
fn separator(header: &str) -> Option<u8> {
    text::delimiter(header).or_else(|| header.contains("\" \"").then_some(b' '))
}

pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    const KIND: &str = "a table";
    refuse(options.layer, "layer", source, KIND, "it has one matrix. Leave it out")?;
    refuse(options.modality, "modality", source, KIND, "it has one matrix. Leave it out")?;
    refuse_names(options, source, KIND)?;
    let table = Table::open(source)?;
    match table.form()? {
        Form::Long(columns) => {
            refuse(options.orientation, "orientation", source, "a long table", "its rows are pairs. Leave it out")?;
            table.long(columns, options)
        }
        Form::Wide { first } => {
            refuse(
                options.batch,
                "batch",
                source,
                "a wide table",
                "it has counts only. Give the batch of each cell itself",
            )?;
            table.wide(first, options)
        }
    }
}

struct Table<'a> {
    source: Source<'a>,
    reader: csv::Reader<Box<dyn Read + Send>>,
    header: Vec<String>,
    /// Records that are already read, the last first.
    ahead: Vec<ByteRecord>,
    /// Lines before the header.
    skipped: u64,
}

enum Form {
    Wide {
        /// The first column with counts; those before it name the rows.
        first: usize,
    },
    Long(Long),
}

/// The columns of a long table.
struct Long {
    cell: usize,
    guide: usize,
    count: usize,
    /// The first record is one of data.
    is_headless: bool,
}

impl<'a> Table<'a> {
    fn open(source: Source<'a>) -> Result<Self> {
        let mut stream = BufReader::with_capacity(1 << 20, text::stream(source)?);
        let (mut line, mut skipped) = (vec![], 0);
        while line.is_empty() {
            if stream.read_until(b'\n', &mut line).map_err(|error| cut_short(source, error))? == 0 {
                break;
            }
            if is_comment(&line) {
                line.clear();
                skipped += 1;
            }
        }
        let delimiter = separator(&field(&line)).unwrap_or(b',');
        let rest: Box<dyn Read + Send> = Box::new(Cursor::new(line).chain(stream));
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(rest);
        let mut table = Table { source, reader, header: vec![], ahead: vec![], skipped };
        let header = table.record()?.unwrap_or_default();
        table.header = header.iter().map(field).collect();
        let Some(next) = table.record()? else {
            return Err(source.format("has no rows below its header, so it holds no counts."));
        };
        // R has no name for the column of row names.
        if next.len() == table.header.len() + 1 {
            table.header.insert(0, String::new());
        }
        table.ahead.push(next);
        Ok(table)
    }

    fn record(&mut self) -> Result<Option<ByteRecord>> {
        if let Some(record) = self.ahead.pop() {
            return Ok(Some(record));
        }
        let mut record = ByteRecord::new();
        match self.reader.read_byte_record(&mut record) {
            Ok(more) => Ok(more.then_some(record)),
            Err(error) => Err(self
                .source
                .file(format!("cannot be read to its end: {error}.\n  It may be cut short. Get it again."))),
        }
    }

    fn line(&self, record: &ByteRecord) -> u64 {
        self.skipped + record.position().map_or(0, |position| position.line())
    }

    /// Wide or long, by the names of the columns.
    fn form(&self) -> Result<Form> {
        let header = &self.header;
        let columns: Vec<&str> = header.iter().map(String::as_str).collect();
        let cell = words::find(&columns, words::CELL);
        if let Some([cell, guide, count]) = long_columns(header) {
            return Ok(Form::Long(Long { cell, guide, count, is_headless: false }));
        }
        if header.len() < 6 {
            if let (Some(_), Some(_)) = (cell, guide_column(header)) {
                return Err(self.source.format(format!(
                    "has a column of cells and one of guides, but none of UMI counts. Its columns: {}.\n  Name that column \"umi_count\".",
                    quoted(header)
                )));
            }
        }
        if cell.is_some() && words::find(&columns, &["feature_call"]).is_some() {
            return Err(self.source.format(
                "holds the calls of Cell Ranger, not counts.\n  Give filtered_feature_bc_matrix.h5 of the same run; compare_calls() \
                 reads the calls.",
            ));
        }
        if let [a, b, n] = &columns[..] {
            let are = [a, b].map(|name| are_barcodes(&[(*name).to_owned()]));
            if count(n.as_bytes()).is_ok() && are[0] != are[1] {
                let (cell, guide) = if are[0] { (0, 1) } else { (1, 0) };
                return Ok(Form::Long(Long { cell, guide, count: 2, is_headless: true }));
            }
        }
        // The numbers of the rows, or a second name, before the counts.
        let is_text = |at: usize| {
            self.ahead.last().and_then(|next| next.get(at)).is_some_and(|value| {
                let value = field(value);
                !value.is_empty() && value.parse::<f64>().is_err() && !is_missing(&value)
            })
        };
        Ok(Form::Wide { first: if header.len() > 2 && is_text(1) { 2 } else { 1 } })
    }

    fn wide(mut self, first: usize, options: &ReadOptions) -> Result<GuideFile> {
        let source = self.source;
        // A separator at the end of each line.
        while self.header.len() > first + 1 && self.header.last().is_some_and(String::is_empty) {
            self.header.pop();
        }
        let columns = self.header.split_off(first);
        let mut names: Vec<Vec<String>> = vec![vec![]; first];
        let (mut entries, mut empty): (Vec<Vec<Entry>>, usize) = (vec![], 0);
        while let Some(record) = self.record()? {
            if record.iter().all(|value| value.is_empty()) {
                continue;
            }
            if names[0].len() % ROWS == 0 {
                check_reading()?;
                entries.push(vec![]);
            }
            let n = record.iter().skip(first + columns.len()).filter(|value| !value.is_empty()).count();
            if record.len() < first + columns.len() || n > 0 {
                return Err(source.format_in(format!(
                    "line {} has {} fields where the header has {}.\n  It may be cut short or damaged.",
                    self.line(&record),
                    record.len(),
                    first + columns.len()
                )));
            }
            let row = names[0].len() as u32;
            names.iter_mut().zip(&record).for_each(|(names, name)| names.push(field(name)));
            for (column, value) in record.iter().skip(first).take(columns.len()).enumerate() {
                if value == b"0" {
                    continue;
                }
                let value = value.trim_ascii();
                match count(value) {
                    Ok(0) => {}
                    Ok(count) => {
                        if let Some(block) = entries.last_mut() {
                            block.push(Entry { cell: row, guide: column as i32, count });
                        }
                    }
                    Err(_) if value.is_empty() || is_missing(&field(value)) => empty += 1,
                    Err(why) => {
                        return Err(source.counts(format!(
                            "line {} has the count \"{}\" in the column \"{}\", {why}.\n  kaichi needs raw UMI counts: whole numbers \
                             from 0 to 2147483647, below the names of the columns.",
                            self.line(&record),
                            field(value),
                            columns[column]
                        )))
                    }
                }
            }
        }
        let corner = self.header.first().cloned().unwrap_or_default();
        let is_numbered = first == 2 && are_row_numbers(names[0].iter().map(String::as_str));
        let (rows_names, second) = match (is_numbered, names.pop()) {
            (true, Some(second)) => (second, None),
            (_, Some(second)) if first == 2 => (names.swap_remove(0), Some(second)),
            (_, only) => (only.unwrap_or_default(), None),
        };
        let corner = if is_numbered { self.header.swap_remove(1) } else { corner };
        let Some((orientation, why)) = orient(&rows_names, &columns, &corner, options.guides, options.orientation)
        else {
            return Err(source.format(format!(
                "has {} rows ({}) and {} columns ({}), either of which may be the guides.\n  Say which: `orientation = \"{}\"`, where \
                 rows are guides, or \"{}\"; or give the guide table as `guides`.",
                rows_names.len(),
                quoted_to(2, &rows_names),
                columns.len(),
                quoted_to(2, &columns),
                Orientation::NAMES[0],
                Orientation::NAMES[1]
            )));
        };
        let (features, cells, shown) = match orientation {
            Orientation::GuidesByCells => (rows_names, columns, "guides x cells"),
            Orientation::CellsByGuides => (columns, rows_names, "cells x guides"),
        };
        let mut choices = vec![format!(
            "Reading \"{}\" as {shown}{why}: {} features, {} cells.",
            file_name(source.0),
            features.len(),
            cells.len()
        )];
        if empty > 0 {
            choices.push(format!("{empty} fields without a number are taken as 0."));
        }
        let also: Vec<Vec<String>> = second.into_iter().filter(|other| other.len() == features.len()).collect();
        if orientation == Orientation::GuidesByCells {
            entries.iter_mut().flatten().for_each(|entry| {
                (entry.cell, entry.guide) = (entry.guide as u32, entry.cell as i32);
            });
        }
        finish(source, features, &also, cells, entries, None, choices, options)
    }

    fn long(mut self, columns: Long, options: &ReadOptions) -> Result<GuideFile> {
        let source = self.source;
        let find = |words: &[&str]| if columns.is_headless { None } else { words::find(&self.header, words) };
        let sample = find(&["sample", "sample_id", "sample_name", "library", "lane", "gem_group"])
            .filter(|at| ![columns.cell, columns.guide, columns.count].contains(at));
        let batch = match options.batch {
            None => None,
            Some(name) => {
                Some(self.header.iter().position(|column| column == name).filter(|_| !columns.is_headless).ok_or_else(
                    || {
                        source.batch(format!(
                            "there is no column \"{name}\".\n  Its columns are {}.",
                            quoted(&self.header)
                        ))
                    },
                )?)
            }
        };
        let said = format!(
            "Reading \"{}\" as a long table: cells of \"{}\", guides of \"{}\", counts of \"{}\".",
            file_name(source.0),
            self.header[columns.cell],
            self.header[columns.guide],
            self.header[columns.count]
        );
        let mut choices = if columns.is_headless {
            vec![format!(
                "Reading \"{}\" as a long table without a header: cell, guide and count.",
                file_name(source.0)
            )]
        } else {
            vec![said]
        };
        let n_fields = self.header.len();
        if columns.is_headless {
            // The header is the first record.
            self.ahead.push(ByteRecord::from(self.header.clone()));
        }
        let (mut cells, mut guides) = (Index::default(), Index::default());
        let mut batches: Vec<String> = vec![];
        let (mut samples, mut bare) = (Index::default(), vec![]);
        let (mut entries, mut n, mut without) = (vec![], 0usize, 0usize);
        while let Some(record) = self.record()? {
            if n % (ROWS * ROWS) == 0 {
                check_reading()?;
                entries.push(vec![]);
            }
            n += 1;
            if record.len() != n_fields {
                return Err(source.format_in(format!(
                    "line {} has {} fields where the header has {n_fields}.\n  It may be cut short or damaged.",
                    self.line(&record),
                    record.len()
                )));
            }
            let mut name = field(&record[columns.cell]);
            if let Some(sample) = sample {
                let sample = field(&record[sample]);
                samples.place(&sample);
                name = format!("{sample}_{name}");
            }
            let cell = cells.place(&name);
            if sample.is_some() && cell == bare.len() {
                bare.push(field(&record[columns.cell]));
            }
            if let Some(batch) = batch {
                let value = field(&record[batch]);
                match batches.get(cell) {
                    None => batches.push(value),
                    Some(other) if *other == value => {}
                    Some(other) => {
                        return Err(source.batch(format!(
                            "cell \"{name}\" is in the batches \"{other}\" and \"{value}\". Give every cell one batch."
                        )))
                    }
                }
            }
            let guide = field(&record[columns.guide]);
            if guide.is_empty() || is_missing(&guide) {
                without += 1;
                continue;
            }
            let guide = guides.place(&guide);
            let value = record[columns.count].trim_ascii();
            let count = count(value).map_err(|why| {
                source.counts(format!(
                    "line {} has the count \"{}\", {why}.\n  kaichi needs raw UMI counts: whole numbers from 0 to 2147483647.",
                    self.line(&record),
                    field(value)
                ))
            })?;
            if let Some(block) = entries.last_mut().filter(|_| count > 0) {
                block.push(Entry { cell: cell as u32, guide: guide as i32, count });
            }
        }
        if without > 0 {
            choices.push(format!("{without} rows name no guide and are left out; their cells are kept."));
        }
        let mut cells = cells.names;
        match &samples.names[..] {
            [] => {}
            // Barcodes that tell the samples themselves stay as they are.
            _ if first_twice(&bare).is_none() => cells = bare,
            several => choices.push(format!(
                "Cells are named by sample and barcode: there are {} samples, such as \"{}\".",
                several.len(),
                several[0]
            )),
        }
        let batch = batch.map(|_| batches);
        finish(source, guides.names, &[], cells, entries, batch, choices, options)
    }
}

/// The most rows of a sample sheet.
const SHEET: usize = 10_000;

/// The header and the rows below it.
pub(super) type Sheet = (Vec<String>, Vec<Vec<String>>);

/// A sample sheet, which has one of these columns; none of another table.
pub(super) fn sheet(source: Source, paths: &[&str]) -> Result<Option<Sheet>> {
    let mut table = Table::open(source)?;
    let columns = [words::CELL, words::COUNT];
    if words::find(&table.header, paths).is_none()
        || columns.iter().all(|words| words::find(&table.header, words).is_some())
    {
        return Ok(None);
    }
    let mut rows = vec![];
    while let Some(record) = table.record()? {
        if record.len() != table.header.len() || rows.len() == SHEET {
            return Err(source.format(format!(
                "is a sample sheet of {} columns, but has {} in line {}.\n  Give it one row for each sample.",
                table.header.len(),
                record.len(),
                table.line(&record)
            )));
        }
        rows.push(record.iter().map(field).collect());
    }
    Ok(Some((table.header, rows)))
}

/// The columns of cells, guides and counts, by their names, if all are there.
pub fn long_columns(header: &[String]) -> Option<[usize; 3]> {
    let cell = words::find(header, words::CELL)?;
    let guide = guide_column(header).filter(|&guide| guide != cell)?;
    Some([cell, guide, words::find(header, words::COUNT)?])
}

fn guide_column(header: &[String]) -> Option<usize> {
    words::find_guide_column(header, "guide_id").or_else(|| words::find(header, words::FEATURE))
}

/// What pandas, R and spreadsheets write for no value.
fn is_missing(value: &str) -> bool {
    ["NA", "NaN", "nan", "na", "N/A", "None", "NULL", "<NA>"].contains(&value)
}

/// Names in the order in which they come.
#[derive(Default)]
struct Index {
    places: HashMap<String, usize>,
    names: Vec<String>,
}

impl Index {
    fn place(&mut self, name: &str) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let place = self.names.len();
        self.places.insert(name.to_owned(), place);
        self.names.push(name.to_owned());
        place
    }
}

/// What the rows of a wide table are, and in words why: the user said so, the name of their column, the guide table, barcodes, or names
/// that only features have.
pub fn orient(
    rows: &[String],
    columns: &[String],
    corner: &str,
    table: Option<&[String]>,
    wanted: Option<Orientation>,
) -> Option<(Orientation, &'static str)> {
    if let Some(wanted) = wanted {
        return Some((wanted, ""));
    }
    let [(_, guide_words), ..] = GUIDE_COLUMNS;
    let is_word =
        |words: &[&str]| words.iter().any(|word| bare(word) == bare(corner) && !["id", "name"].contains(word));
    // Which of the rows and the columns are cells.
    let cells = |of_rows: bool, of_columns: bool| match (of_rows, of_columns) {
        (true, false) => Some(Orientation::CellsByGuides),
        (false, true) => Some(Orientation::GuidesByCells),
        _ => None,
    };
    let known: Option<std::collections::HashSet<&str>> = table.map(|ids| ids.iter().map(String::as_str).collect());
    let in_table =
        |names: &[String]| known.as_ref().is_some_and(|ids| names.iter().any(|name| ids.contains(name.as_str())));
    let left = |names: &[String]| names.iter().any(|name| is_leftover(name));
    let genes = |names: &[String]| are_genes(names, &[]).is_some();
    cells(in_table(columns), in_table(rows))
        .map(|found| (found, " (by the guide table)"))
        .or_else(|| {
            cells(is_word(words::CELL), is_word(guide_words) || is_word(words::FEATURE)).map(|found| (found, ""))
        })
        .or_else(|| cells(are_barcodes(rows), are_barcodes(columns)).map(|found| (found, " (by the barcodes)")))
        .or_else(|| cells(left(columns), left(rows)).map(|found| (found, "")))
        .or_else(|| cells(genes(columns), genes(rows)).map(|found| (found, "")))
}

#[allow(clippy::too_many_arguments)]
fn finish(
    source: Source,
    names: Vec<String>,
    also: &[Vec<String>],
    cells: Vec<String>,
    mut entries: Vec<Vec<Entry>>,
    batch: Option<Vec<String>>,
    mut choices: Vec<String>,
    options: &ReadOptions,
) -> Result<GuideFile> {
    let described = Described { names: &names, also, types: None };
    let chosen = features::choose(source, described, options.feature_type, options.guides)?;
    choices.extend(chosen.choices.iter().cloned());
    let guide_names = chosen.of(&names);
    features::check_names(source, &guide_names, "guide", "the table")?;
    features::check_names(source, &cells, "cell", "the table")?;
    if !chosen.is_all() {
        for block in &mut entries {
            block.retain_mut(|entry| match chosen.places[entry.guide as usize] {
                Some(place) => {
                    entry.guide = place;
                    true
                }
                None => false,
            });
        }
    }
    let (indptr, guides, counts) = rows(source, &entries, &cells, &guide_names)?;
    Ok(GuideFile {
        indptr,
        guides,
        counts,
        cell_names: cells,
        guide_names,
        batch,
        samples: Samples::default(),
        facts: vec![],
        choices,
    })
}
