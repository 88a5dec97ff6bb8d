//! Matrix Market files and the names beside them: folders of 10x (Cell Ranger 2 and later), STARsolo, CITE-seq-Count, Parse, kallisto,
//! alevin-fry and GEO, gzipped or not. Format: <https://math.nist.gov/MatrixMarket/formats.html>.
mod beside;
mod names;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::beside::Role;
use self::names::Names;
use super::entries::{count, number, rows, Entry};
use super::features::{self, Chosen};
use super::h5ad::values::Source;
use super::inspect::{bytes, counted, Facts, Range};
use super::samples::Samples;
use super::text::{cut_short, file_name, open};
use super::{refuse, GuideFile, Orientation, ReadOptions};
use crate::run::check_reading;
use crate::Result;

const BANNER: &[u8] = b"%%MatrixMarket";

/// Text that is read at once, and that a thread parses.
const BLOCK: usize = 1 << 23;
const PIECE: usize = 1 << 18;

/// Whether the file, once inflated, says that it is a Matrix Market file.
pub fn is(source: Source) -> Result<bool> {
    let mut head = vec![];
    let read = open(source)?.take(BANNER.len() as u64).read_to_end(&mut head);
    Ok(read.is_ok() && head.eq_ignore_ascii_case(BANNER))
}

pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let folder = Source(path);
    const KIND: &str = "a Matrix Market file";
    refuse(options.layer, "layer", folder, KIND, "it has one matrix. Leave it out")?;
    refuse(options.modality, "modality", folder, KIND, "it has one matrix. Leave it out")?;
    let Opened { matrix, reader, header, features, cells, mut choices } = Opened::new(path, options)?;
    let source = Source(&matrix);
    let (n_features, n_cells) = (features.ids.len(), cells.ids.len());
    let orientation = orient(source, &header, &features, &cells, options.orientation)?;
    let shown = match orientation {
        Orientation::GuidesByCells => "guides x cells",
        Orientation::CellsByGuides => "cells x guides",
    };
    choices.push(format!(
        "Reading \"{}\" as {shown}: {n_features} features of \"{}\", {n_cells} cells of \"{}\".",
        file_name(&matrix),
        file_name(&features.path),
        file_name(&cells.path)
    ));
    if header.layout == Layout::Pattern {
        choices.push("It says only which pairs there are (pattern): each is taken as 1 UMI.".to_owned());
    }

    let of_features = Source(&features.path);
    let chosen = features::choose(of_features, features.described(), options.feature_type, options.guides)?;
    choices.extend(chosen.choices.iter().cloned());
    let guide_names = chosen.of(&features.ids);
    features::check_names(of_features, &guide_names, "guide", &file_name(&features.path))?;
    features::check_names(Source(&cells.path), &cells.ids, "cell", &file_name(&cells.path))?;
    features::refuse_transposed(
        source,
        &guide_names,
        &cells.ids,
        "Give each file of names as what it is, with `features` and `barcodes`.",
    )?;
    let batch = options.batch.map(|column| cells.batch(column)).transpose()?;

    let entries = read_entries(source, reader, &header, orientation, &chosen)?;
    let (indptr, guides, counts) = rows(source, &entries, &cells.ids, &guide_names)?;
    let facts = features.facts().into_iter().filter_map(|(name, values)| features::fact(&name, chosen.of(&values)));
    let facts = facts.collect();
    Ok(GuideFile {
        indptr,
        guides,
        counts,
        cell_names: cells.ids,
        guide_names,
        batch,
        samples: Samples::default(),
        facts,
        choices,
    })
}

/// The matrices of a folder with names of their own, and what each is named for.
pub(super) fn triplets(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    beside::triplets(Source(folder))
}

/// Whether the folder has a Matrix Market file.
pub(super) fn find_one(folder: &Path) -> bool {
    beside::listed(Source(folder)).is_ok_and(|names| names.iter().any(|name| beside::stem(name).is_some()))
}

/// A matrix before its entries, and the names beside it.
struct Opened {
    matrix: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    header: Header,
    features: Names,
    cells: Names,
    choices: Vec<String>,
}

impl Opened {
    fn new(path: &Path, options: &ReadOptions) -> Result<Self> {
        let (matrix, choice) = if path.is_dir() { beside::find_matrix(Source(path))? } else { (path.to_owned(), None) };
        let source = Source(&matrix);
        let mut reader = BufReader::with_capacity(1 << 20, open(source)?);
        let header = Header::read(source, &mut reader)?;
        let (features, cells, said) = names(source, &header, options)?;
        Ok(Opened { matrix, reader, header, features, cells, choices: choice.into_iter().chain(said).collect() })
    }
}

/// The names of the features and of the cells: of the files that the user gave, else of those beside the matrix.
fn names(matrix: Source, header: &Header, options: &ReadOptions) -> Result<(Names, Names, Option<String>)> {
    let sides = [header.rows, header.columns];
    let given = |path: Option<&str>, role| path.map(|path| Names::read(path.into(), role, sides)).transpose();
    let (features, cells) = (given(options.features, Role::Features)?, given(options.barcodes, Role::Cells)?);
    let (features, cells) = match (features, cells) {
        (Some(features), Some(cells)) => return Ok((features, cells, None)),
        others => others,
    };
    let beside = beside::find(matrix)?;
    let nothing = features.is_none() && cells.is_none() && beside.features.is_empty() && beside.cells.is_empty();
    if let Some([rows, columns]) = beside.sides.filter(|_| nothing) {
        return by_sides(matrix, rows, columns, sides).map(|(features, cells)| (features, cells, None));
    }
    let missing = |what, known, argument| {
        matrix.file(format!(
            "has no file beside it that names its {what}, such as {known}, gzipped or not.\n  Give that file as `{argument}`."
        ))
    };
    let features = match features {
        Some(features) => features,
        None if beside.features.is_empty() => {
            return Err(missing("guides", "features.tsv, genes.tsv or all_guides.csv", "features"))
        }
        None => Names::of_length(matrix, Role::Features, &beside.features, sides)?,
    };
    if cells.is_none() && beside.cells.is_empty() {
        return Err(missing("cells", "barcodes.tsv or cell_metadata.csv", "barcodes"));
    }
    let is_given = cells.is_some();
    let mut cells = match cells {
        Some(cells) => cells,
        None => Names::of_length(matrix, Role::Cells, &beside.cells, sides)?,
    };
    let mut choice = None;
    if let Some(path) = beside.prefixes.filter(|_| !is_given) {
        cells.with_prefixes(&path)?;
        choice = Some(format!("Cells are named with the prefixes of \"{}\".", file_name(&path)));
    }
    Ok((features, cells, choice))
}

/// Files that say rows and columns only: cells are those that are named by barcodes, else the rows, as alevin-fry writes them.
fn by_sides(matrix: Source, rows: PathBuf, columns: PathBuf, sides: [usize; 2]) -> Result<(Names, Names)> {
    let read = |path: &PathBuf, role| Names::read(path.clone(), role, sides);
    let (of_rows, of_columns) = (read(&rows, Role::Cells)?, read(&columns, Role::Cells)?);
    let are_cells = [&of_rows, &of_columns].map(|names| features::are_barcodes(&names.ids));
    let is_alevin = file_name(matrix.0).starts_with("quants_mat");
    match are_cells {
        [true, false] => Ok((read(&columns, Role::Features)?, of_rows)),
        [false, true] => Ok((read(&rows, Role::Features)?, of_columns)),
        _ if is_alevin => Ok((read(&columns, Role::Features)?, of_rows)),
        _ => Err(matrix.format(format!(
            "has \"{}\" and \"{}\" beside it, and neither looks like barcodes.\n  Give the one with the guides as `features`, the \
             other as `barcodes`.",
            file_name(&rows),
            file_name(&columns)
        ))),
    }
}

/// What the files are; values are only looked at.
pub(super) fn inspect(path: &Path) -> Result<Facts> {
    let Opened { matrix, mut reader, header, features, cells, .. } = Opened::new(path, &ReadOptions::default())?;
    let source = Source(&matrix);
    let mut facts = Facts::new();
    let mut say = |label: &str, text: String| facts.push((0, label.to_owned(), text));
    say("kind", "counts in Matrix Market format (.mtx)".to_owned());
    say("size", bytes(std::fs::metadata(&matrix).map_or(0, |data| data.len())));
    say("matrix file", format!("{}, {} x {}", file_name(&matrix), header.rows, header.columns));
    let fits = |wanted| orient(source, &header, &features, &cells, Some(wanted)).is_ok();
    let rows = match (fits(Orientation::GuidesByCells), fits(Orientation::CellsByGuides)) {
        (true, true) => "features or cells: it is square, so give --orientation",
        (true, false) => "features",
        (false, true) => "cells",
        // The error that says why.
        _ => return orient(source, &header, &features, &cells, None).map(|_| facts),
    };
    say("rows", rows.to_owned());
    for (names, what) in [(&cells, "cells"), (&features, "features")] {
        say(what, format!("{} ({})", names.ids.len(), file_name(&names.path)));
        if !names.columns.is_empty() {
            let columns: Vec<&str> = names.columns.iter().map(|(name, _)| name.as_str()).collect();
            say(&format!("columns of {what}"), columns.join(", "));
        }
    }
    if let Some(types) = features.types {
        say("feature types", counted(types));
    }
    let mut range = Range::default();
    let (mut line, mut at) = (vec![], header.lines);
    while reader.read_until(b'\n', &mut line).map_err(|error| cut_short(source, error))? > 0 {
        at += 1;
        let text = String::from_utf8_lossy(&line);
        if let Some(word) = text.split_whitespace().next_back().filter(|_| !text.starts_with('%')) {
            let value = word.parse();
            range.add(
                value.map_err(|_| source.format_in(format!("line {at} ends in \"{word}\", which is no number.")))?,
            );
        }
        line.clear();
    }
    let said = match range.n == header.entries {
        true => String::new(),
        false => format!(" (its head says {}: it is cut short or damaged)", header.entries),
    };
    say("matrix", format!("{} stored{said}, {}", range.n, range.words()));
    Ok(facts)
}

// ---- the matrix ----

#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// A row, a column and a count in each line.
    Coordinate,
    /// A row and a column.
    Pattern,
    /// A count for every place, column by column.
    Array,
}

struct Header {
    layout: Layout,
    rows: usize,
    columns: usize,
    entries: usize,
    /// Lines up to the sizes.
    lines: usize,
}

impl Header {
    fn read(source: Source, reader: &mut impl BufRead) -> Result<Self> {
        let mut line = vec![];
        let mut lines = 0;
        let mut next = |line: &mut Vec<u8>| -> Result<bool> {
            line.clear();
            lines += 1;
            Ok(reader.read_until(b'\n', line).map_err(|error| cut_short(source, error))? > 0)
        };
        next(&mut line)?;
        let banner = String::from_utf8_lossy(&line).to_lowercase();
        let words: Vec<&str> = banner.split_whitespace().collect();
        // scipy 1.12 and later write unsigned-integer.
        let layout = match words[..] {
            ["%%matrixmarket", "matrix", "coordinate", "integer" | "unsigned-integer" | "real", "general"] => {
                Layout::Coordinate
            }
            ["%%matrixmarket", "matrix", "coordinate", "pattern", "general"] => Layout::Pattern,
            ["%%matrixmarket", "matrix", "array", "integer" | "unsigned-integer" | "real", "general"] => Layout::Array,
            ["%%matrixmarket", ..] => {
                return Err(source.format(format!(
                    "is a Matrix Market file of the kind \"{}\"; kaichi reads \"matrix coordinate integer general\", \
                     \"unsigned-integer\", \"real\", \"pattern\" and \"array\".",
                    words[1..].join(" ")
                )))
            }
            _ => return Err(source.format("does not start with %%MatrixMarket, so it is no Matrix Market file.")),
        };
        while next(&mut line)? {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if text.is_empty() || text.starts_with('%') {
                continue;
            }
            let mut sizes: Vec<usize> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
            let n_sizes = if layout == Layout::Array { 2 } else { 3 };
            let are_numbers = sizes.len() == n_sizes && text.split_whitespace().count() == n_sizes;
            if layout == Layout::Array {
                sizes.push(sizes.iter().fold(1, |n, &size| n.saturating_mul(size)));
            }
            if let (true, [rows, columns, entries]) = (are_numbers, &sizes[..]) {
                if [rows, columns].iter().any(|&&n| n > i32::MAX as usize) {
                    return Err(
                        source.counts("the matrix has more rows or columns than the 2147483647 kaichi can hold.")
                    );
                }
                return Ok(Header { layout, rows: *rows, columns: *columns, entries: *entries, lines });
            }
            return Err(source.format_in(format!(
                "line {lines} should hold the numbers of rows{}, but is \"{text}\".",
                if layout == Layout::Array { " and columns" } else { ", columns and entries" }
            )));
        }
        Err(source.format("ends before the sizes of its matrix: it is cut short. Get it again."))
    }
}

/// What the rows are, by the numbers of names.
fn orient(
    source: Source,
    header: &Header,
    features: &Names,
    cells: &Names,
    wanted: Option<Orientation>,
) -> Result<Orientation> {
    let (rows, columns) = (header.rows, header.columns);
    let (n_features, n_cells) = (features.ids.len(), cells.ids.len());
    let names = || {
        format!(
            "{n_features} features in \"{}\" and {n_cells} cells in \"{}\"",
            file_name(&features.path),
            file_name(&cells.path)
        )
    };
    let fits = |orientation| match orientation {
        Orientation::GuidesByCells => (rows, columns) == (n_features, n_cells),
        Orientation::CellsByGuides => (rows, columns) == (n_cells, n_features),
    };
    match (wanted, fits(Orientation::GuidesByCells), fits(Orientation::CellsByGuides)) {
        (Some(wanted), ..) if fits(wanted) => Ok(wanted),
        (None, true, false) => Ok(Orientation::GuidesByCells),
        (None, false, true) => Ok(Orientation::CellsByGuides),
        (None, true, true) => Err(source.format(format!(
            "is {rows} x {columns}, so its rows may be the guides or the cells.\n  Say which: `orientation = \
             \"{}\"`, as 10x and STARsolo write, or \"{}\", as Parse and kallisto do.",
            Orientation::NAMES[0],
            Orientation::NAMES[1]
        ))),
        (wanted, ..) => Err(source.format(format!(
            "is {rows} x {columns}, but there are {}.\n  {}",
            names(),
            match wanted {
                Some(_) if fits(Orientation::GuidesByCells) || fits(Orientation::CellsByGuides) =>
                    "It is the other way round: leave `orientation` out.",
                _ => "They must be of one run: names and matrix do not belong together, or a file is cut short.",
            }
        ))),
    }
}

/// Blocks are read while those before them are parsed.
fn read_entries(
    source: Source,
    mut reader: impl Read + Send,
    header: &Header,
    orientation: Orientation,
    chosen: &Chosen,
) -> Result<Vec<Vec<Entry>>> {
    let mut entries = vec![];
    let (mut lines, mut n) = (header.lines, 0);
    let mut rest = vec![];
    let mut block = next_block(source, &mut reader, &mut rest)?;
    while !block.is_empty() {
        check_reading()?;
        let (next, parsed) = rayon::join(
            || next_block(source, &mut reader, &mut rest),
            || -> Vec<_> {
                pieces(&block).into_par_iter().map(|piece| parse(piece, header, orientation, chosen)).collect()
            },
        );
        for piece in parsed {
            match piece {
                Ok(mut piece) => {
                    if header.layout == Layout::Array {
                        let at = std::mem::take(&mut piece.counts)
                            .into_iter()
                            .zip(n..)
                            .take(header.entries - n.min(header.entries));
                        let of_guide = at.filter_map(|(count, at)| {
                            place(at % header.rows, at / header.rows, orientation, chosen, count)
                        });
                        piece.entries = of_guide.collect();
                    }
                    lines += piece.lines;
                    n += piece.n;
                    entries.push(piece.entries);
                }
                Err((line, kind, what)) => {
                    let text = format!("line {} {what}", lines + line);
                    return Err(match kind {
                        Fault::Format => source.format_in(text),
                        Fault::Count => source.counts(format!(
                            "{text}.\n  kaichi needs raw UMI counts: whole numbers from 0 to 2147483647."
                        )),
                    });
                }
            }
        }
        if n > header.entries {
            break;
        }
        block = next?;
    }
    if n != header.entries {
        let (said, found) = (header.entries, if n > header.entries { "more".to_owned() } else { n.to_string() });
        return Err(source.format(format!(
            "says that it has {said} entries, but has {found}. It is cut short or damaged: get it again."
        )));
    }
    Ok(entries)
}

/// Whole lines; `rest` is the start of the next.
fn next_block(source: Source, reader: &mut impl Read, rest: &mut Vec<u8>) -> Result<Vec<u8>> {
    let mut block = std::mem::take(rest);
    loop {
        let read = reader.take(BLOCK as u64).read_to_end(&mut block).map_err(|error| cut_short(source, error))?;
        if read == 0 {
            return Ok(block);
        }
        if let Some(end) = block.iter().rposition(|&byte| byte == b'\n') {
            *rest = block.split_off(end + 1);
            return Ok(block);
        }
    }
}

/// Pieces of whole lines.
fn pieces(mut block: &[u8]) -> Vec<&[u8]> {
    let mut pieces = vec![];
    while block.len() > PIECE {
        let end = block[PIECE..].iter().position(|&byte| byte == b'\n').map_or(block.len(), |at| PIECE + at + 1);
        let (piece, others) = block.split_at(end);
        pieces.push(piece);
        block = others;
    }
    pieces.push(block);
    pieces
}

struct Piece {
    entries: Vec<Entry>,
    /// Entries of the file, of guides or not.
    n: usize,
    lines: usize,
    /// Of an array, whose places follow from what came before: all counts.
    counts: Vec<i32>,
}

/// A count at its place, where it is of a guide and not 0.
fn place(row: usize, column: usize, orientation: Orientation, chosen: &Chosen, count: i32) -> Option<Entry> {
    let (cell, feature) = match orientation {
        Orientation::GuidesByCells => (column, row),
        Orientation::CellsByGuides => (row, column),
    };
    let guide = chosen.places[feature]?;
    (count > 0).then_some(Entry { cell: cell as u32, guide, count })
}

#[derive(Clone, Copy)]
enum Fault {
    Format,
    Count,
}

fn parse(
    text: &[u8],
    header: &Header,
    orientation: Orientation,
    chosen: &Chosen,
) -> std::result::Result<Piece, (usize, Fault, String)> {
    let mut piece = Piece { entries: vec![], n: 0, lines: 0, counts: vec![] };
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        piece.lines += 1;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(row) = words.next() else { continue };
        if row.starts_with(b"%") {
            continue;
        }
        let wrong = |kind, what: String| (piece.lines, kind, what);
        let shown = || String::from_utf8_lossy(line.trim_ascii()).into_owned();
        let no_count = |value: &[u8]| {
            count(value)
                .map_err(|why| wrong(Fault::Count, format!("has the count {}, {why}", String::from_utf8_lossy(value))))
        };
        let (column, value) = match (header.layout, words.next(), words.next(), words.next()) {
            (Layout::Array, None, None, None) => {
                piece.n += 1;
                piece.counts.push(no_count(row)?);
                continue;
            }
            (Layout::Coordinate, Some(column), Some(value), None) => (column, value),
            (Layout::Pattern, Some(column), None, None) => (column, &b"1"[..]),
            _ => {
                let what = match header.layout {
                    Layout::Array => "a count",
                    Layout::Coordinate => "a row, a column and a count",
                    Layout::Pattern => "a row and a column",
                };
                return Err(wrong(Fault::Format, format!("should hold {what}, but is \"{}\".", shown())));
            }
        };
        let position = |word: &[u8], axis: &str, n: usize| match number(word) {
            Some(place) if 1 <= place && place <= n as u64 => Ok(place as usize - 1),
            _ => {
                let text =
                    format!("names {axis} \"{}\", but there are {n}, counted from 1.", String::from_utf8_lossy(word));
                Err(wrong(Fault::Format, text))
            }
        };
        let (row, column) = (position(row, "row", header.rows)?, position(column, "column", header.columns)?);
        piece.n += 1;
        let (_, feature) = match orientation {
            Orientation::GuidesByCells => (column, row),
            Orientation::CellsByGuides => (row, column),
        };
        if chosen.places[feature].is_some() {
            piece.entries.extend(place(row, column, orientation, chosen, no_count(value)?));
        }
    }
    Ok(piece)
}
