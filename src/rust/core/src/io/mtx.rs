//! Matrix Market files and the names beside them: folders of 10x (Cell Ranger 2 and later), STARsolo, CITE-seq-Count, Parse and
//! kallisto, gzipped or not. Format: <https://math.nist.gov/MatrixMarket/formats.html>.
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rayon::prelude::*;

use super::features::{self, Chosen};
use super::h5ad::values::{quoted, Source};
use super::inspect::{bytes, counted, Facts, Range};
use super::{refuse, GuideFile, Orientation, ReadOptions};
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
    let Opened { matrix, reader, header, features, cells } = Opened::new(path)?;
    let source = Source(&matrix);
    let (n_features, n_cells) = (features.ids.len(), cells.ids.len());
    let orientation = orient(source, &header, &features, &cells, options.orientation)?;
    let shown = match orientation {
        Orientation::GuidesByCells => "guides x cells",
        Orientation::CellsByGuides => "cells x guides",
    };
    let mut choices = vec![format!(
        "Reading \"{}\" as {shown}: {n_features} features of \"{}\", {n_cells} cells of \"{}\".",
        file_name(&matrix),
        file_name(&features.path),
        file_name(&cells.path)
    )];

    let of_features = Source(&features.path);
    let chosen = match &features.types {
        Some(types) => features::choose(of_features, types, options.feature_type)?,
        None => features::take_all(of_features, &features.ids, options.feature_type)?,
    };
    choices.extend(chosen.choice.clone());
    let guide_names = chosen.of(&features.ids);
    features::check_names(of_features, &guide_names, "guide", &file_name(&features.path))?;
    features::check_names(Source(&cells.path), &cells.ids, "cell", &file_name(&cells.path))?;
    let batch = options.batch.map(|column| cells.batch(column)).transpose()?;

    let entries = read_entries(source, reader, &header, orientation, &chosen)?;
    let (indptr, guides, counts) = rows(source, &entries, &cells.ids, &guide_names)?;
    Ok(GuideFile {
        indptr,
        guides,
        counts,
        cell_names: cells.ids,
        guide_names,
        batch,
        facts: features
            .facts
            .into_iter()
            .filter_map(|(name, values)| features::fact(&name, chosen.of(&values)))
            .collect(),
        choices,
    })
}

/// A matrix before its entries, and the names beside it.
struct Opened {
    matrix: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    header: Header,
    features: Names,
    cells: Names,
}

impl Opened {
    fn new(path: &Path) -> Result<Self> {
        let matrix = if path.is_dir() { find_matrix(Source(path))? } else { path.to_owned() };
        let source = Source(&matrix);
        let mut reader = BufReader::with_capacity(1 << 20, open(source)?);
        let header = Header::read(source, &mut reader)?;
        let (features, cells) = find_names(source)?;
        let sides = [header.rows, header.columns];
        let features = Names::of_length(source, "guides", &features, sides)?;
        let cells = Names::of_length(source, "cells", &cells, sides)?;
        Ok(Opened { matrix, reader, header, features, cells })
    }
}

/// What the files are; values are only looked at.
pub(super) fn inspect(path: &Path) -> Result<Facts> {
    let Opened { matrix, mut reader, header, features, cells } = Opened::new(path)?;
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

// ---- which files ----

/// The text of a file, inflated where it is gzip.
pub(super) fn open(source: Source) -> Result<Box<dyn Read + Send>> {
    let unreadable = |error: std::io::Error| source.file(format!("cannot be read: {error}."));
    let mut file = File::open(source.0).map_err(unreadable)?;
    let mut head = vec![];
    (&mut file).take(2).read_to_end(&mut head).map_err(unreadable)?;
    let gzip = head == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(head).chain(file);
    Ok(if gzip { Box::new(MultiGzDecoder::new(BufReader::new(whole))) } else { Box::new(whole) })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The names of the files and folders there, sorted.
fn listed(folder: Source) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder.0).map_err(|error| folder.file(format!("cannot be read: {error}.")))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The name without .mtx or .mtx.gz, if it has it.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".mtx")
}

/// The one .mtx of a folder. Of several, STARsolo's other ways to count reads of many genes for one, `matrix.mtx` is it.
fn find_matrix(folder: Source) -> Result<PathBuf> {
    let names = listed(folder)?;
    let found: Vec<&String> = names.iter().filter(|name| stem(name).is_some()).collect();
    let plain: Vec<&String> = found.iter().copied().filter(|name| stem(name) == Some("matrix")).collect();
    match (&found[..], &plain[..]) {
        ([one], _) | (_, [one]) => Ok(folder.0.join(one)),
        ([], _) => {
            let may_be = |name: &&String| {
                let path = folder.0.join(name);
                name.ends_with(".h5") || name.ends_with(".h5ad") || name.ends_with(".h5mu") || path.is_dir()
            };
            let others: Vec<&String> = names.iter().filter(may_be).collect();
            let hint = if others.is_empty() { String::new() } else { format!("\n  It holds {}.", quoted(&others)) };
            Err(folder.file(format!(
                "is a folder without a Matrix Market file (.mtx, .mtx.gz).{hint}\n  Give the path of the file, or of the folder, \
                 with the counts."
            )))
        }
        _ => Err(folder.file(format!(
            "is a folder with several Matrix Market files: {}.\n  Give the path of the one with the counts.",
            quoted(&found)
        ))),
    }
}

/// The files beside the matrix that may name its features, and its cells. They start as it does, as GSM1_matrix.mtx and
/// GSM1_barcodes.tsv, or with its whole name, as cells_x_features.mtx and cells_x_features.barcodes.txt.
fn find_names(matrix: Source) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let folder = matrix.0.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file_name(matrix.0);
    let stem = stem(&name).unwrap_or(&name);
    let start = ["count_matrix", "matrix", "DGE"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or("");
    let there = listed(Source(folder))?;
    let find = |beside: &[&str], ends: &[&str]| -> Vec<PathBuf> {
        let wanted =
            beside.iter().map(|name| format!("{start}{name}")).chain(ends.iter().map(|end| format!("{stem}.{end}")));
        let plain_or_gzip = wanted.flat_map(|name| [format!("{name}.gz"), name]);
        plain_or_gzip.filter(|name| there.contains(name)).map(|name| folder.join(name)).collect()
    };
    let features = ["features.tsv", "genes.tsv", "all_guides.csv", "all_genes.csv"];
    let cells = ["barcodes.tsv", "cell_metadata.csv"];
    let found = (find(&features, &["genes.txt", "features.txt"]), find(&cells, &["barcodes.txt"]));
    let missing = |what, known: &[&str], end: &str| {
        matrix.file(format!(
            "has no file beside it that names its {what}: {start}{}, or {stem}.{end}, gzipped or not.",
            known.join(&format!(", {start}"))
        ))
    };
    if found.0.is_empty() {
        return Err(missing("guides", &features, "genes.txt"));
    }
    if found.1.is_empty() {
        return Err(missing("cells", &cells, "barcodes.txt"));
    }
    Ok(found)
}

// ---- names ----

struct Names {
    path: PathBuf,
    ids: Vec<String>,
    /// The types of the features, where they are said.
    types: Option<Vec<String>>,
    facts: Vec<(String, Vec<Option<String>>)>,
    /// Columns of a table with a header.
    columns: Vec<(String, Vec<String>)>,
}

impl Names {
    /// Of several files the one that is as long as a side of the matrix.
    fn of_length(matrix: Source, what: &str, paths: &[PathBuf], sides: [usize; 2]) -> Result<Self> {
        let mut read: Vec<Names> = paths.iter().map(|path| Names::read(path.clone())).collect::<Result<_>>()?;
        if read.len() > 1 {
            read.retain(|names| sides.contains(&names.ids.len()));
        }
        match read.len() {
            1 => Ok(read.swap_remove(0)),
            n => {
                let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
                Err(matrix.format(format!(
                    "is {} x {}, and of the files that may name its {what}, {}, {} so many names.\n  Leave the right one beside it.",
                    sides[0],
                    sides[1],
                    quoted(&names),
                    if n == 0 { "none has" } else { "several have" }
                )))
            }
        }
    }

    fn read(path: PathBuf) -> Result<Self> {
        let source = Source(&path);
        let name = file_name(&path);
        let mut text = vec![];
        open(source)?.read_to_end(&mut text).map_err(|error| cut_short(source, error))?;
        let is_csv = name.trim_end_matches(".gz").ends_with(".csv");
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(is_csv)
            .delimiter(if is_csv { b',' } else { b'\t' })
            .quoting(is_csv)
            .flexible(true)
            .from_reader(&text[..]);
        let wrong = |error: csv::Error| source.format(format!("cannot be read: {error}."));
        let header: Vec<String> = match is_csv {
            true => reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect(),
            false => vec![],
        };
        let mut columns: Vec<Vec<String>> = vec![vec![]; header.len().max(1)];
        for (row, record) in reader.records().enumerate() {
            let record = record.map_err(wrong)?;
            if row == 0 && !is_csv {
                columns.resize(record.len().max(1), vec![]);
            }
            if record.len() != columns.len() {
                return Err(source.format(format!(
                    "has {} columns in entry {} and {} before it.\n  It may be cut short or damaged.",
                    record.len(),
                    row + 1,
                    columns.len()
                )));
            }
            columns.iter_mut().zip(&record).for_each(|(column, value)| column.push(value.to_owned()));
        }
        let mut names = Names { ids: vec![], types: None, facts: vec![], columns: vec![], path: path.clone() };
        if is_csv {
            names.columns = header.into_iter().zip(columns).collect();
            names.ids = names.identifiers();
        } else {
            // id, name, type; of barcodes the first is all.
            let mut columns = columns.into_iter();
            names.ids = columns.next().unwrap_or_default();
            names.types = columns.nth(1);
        }
        Ok(names)
    }

    /// The column of a table that names its rows: Parse's gene_id is empty or repeated for some, whose gene_name is not.
    fn identifiers(&self) -> Vec<String> {
        let known = ["guide_id", "bc_wells", "cell_barcode", "barcode", "gene_id", "gene_name"];
        let known = known.iter().filter_map(|name| self.columns.iter().find(|(column, _)| column == name));
        let mut candidates: Vec<&Vec<String>> = known.chain(self.columns.first()).map(|(_, values)| values).collect();
        candidates.dedup();
        let sound =
            |ids: &&&Vec<String>| !ids.iter().any(String::is_empty) && super::h5ad::frame::first_twice(ids).is_none();
        let best = candidates.iter().find(sound).or(candidates.first());
        best.map(|ids| (*ids).clone()).unwrap_or_default()
    }

    fn batch(&self, name: &str) -> Result<Vec<String>> {
        let source = Source(&self.path);
        if let Some((_, values)) = self.columns.iter().find(|(column, _)| column == name) {
            if let Some(at) = values.iter().position(String::is_empty) {
                return Err(
                    source.batch(format!("{name} is empty for cell \"{}\". Give every cell a batch.", self.ids[at]))
                );
            }
            return Ok(values.clone());
        }
        let columns: Vec<&String> = self.columns.iter().map(|(column, _)| column).collect();
        Err(source.batch(match columns.is_empty() {
            true => format!(
                "there is no column \"{name}\", only the names of the cells. Give the batch of each cell itself."
            ),
            false => format!("there is no column \"{name}\".\n  Its columns are {}.", quoted(&columns)),
        }))
    }
}

// ---- the matrix ----

fn cut_short(source: Source, error: std::io::Error) -> crate::Error {
    source.file(format!("cannot be read to its end: {error}.\n  It may be cut short. Get it again."))
}

struct Header {
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
        match words[..] {
            ["%%matrixmarket", "matrix", "coordinate", "integer" | "real", "general"] => {}
            ["%%matrixmarket", ..] => {
                return Err(source.format(format!(
                "is a Matrix Market file of the kind \"{}\"; kaichi reads \"matrix coordinate integer general\" and \
                     \"real\".",
                words[1..].join(" ")
            )))
            }
            _ => return Err(source.format("does not start with %%MatrixMarket, so it is no Matrix Market file.")),
        }
        while next(&mut line)? {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if text.is_empty() || text.starts_with('%') {
                continue;
            }
            let sizes: Vec<usize> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
            if let ([rows, columns, entries], 3) = (&sizes[..], text.split_whitespace().count()) {
                if [rows, columns].iter().any(|&&n| n > i32::MAX as usize) {
                    return Err(
                        source.counts("the matrix has more rows or columns than the 2147483647 kaichi can hold.")
                    );
                }
                return Ok(Header { rows: *rows, columns: *columns, entries: *entries, lines });
            }
            return Err(source.format_in(format!(
                "line {lines} should hold the numbers of rows, columns and entries, but is \"{text}\"."
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

/// A count of a guide.
struct Entry {
    cell: u32,
    guide: i32,
    count: i32,
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
        let (next, parsed) = rayon::join(
            || next_block(source, &mut reader, &mut rest),
            || -> Vec<_> {
                pieces(&block).into_par_iter().map(|piece| parse(piece, header, orientation, chosen)).collect()
            },
        );
        for piece in parsed {
            match piece {
                Ok(piece) => {
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
    let mut piece = Piece { entries: vec![], n: 0, lines: 0 };
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        piece.lines += 1;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(row) = words.next() else { continue };
        if row.starts_with(b"%") {
            continue;
        }
        let wrong = |kind, what: String| (piece.lines, kind, what);
        let shown = || String::from_utf8_lossy(line.trim_ascii()).into_owned();
        let (Some(column), Some(value), None) = (words.next(), words.next(), words.next()) else {
            let text = format!("should hold a row, a column and a count, but is \"{}\".", shown());
            return Err(wrong(Fault::Format, text));
        };
        let place = |word: &[u8], axis: &str, n: usize| match number(word) {
            Some(place) if 1 <= place && place <= n as u64 => Ok(place as usize - 1),
            _ => {
                let text =
                    format!("names {axis} \"{}\", but there are {n}, counted from 1.", String::from_utf8_lossy(word));
                Err(wrong(Fault::Format, text))
            }
        };
        let (row, column) = (place(row, "row", header.rows)?, place(column, "column", header.columns)?);
        let (cell, feature) = match orientation {
            Orientation::GuidesByCells => (column, row),
            Orientation::CellsByGuides => (row, column),
        };
        piece.n += 1;
        let Some(guide) = chosen.places[feature] else { continue };
        let count = count(value)
            .map_err(|why| wrong(Fault::Count, format!("has the count {}, {why}", String::from_utf8_lossy(value))))?;
        if count > 0 {
            piece.entries.push(Entry { cell: cell as u32, guide, count });
        }
    }
    Ok(piece)
}

/// Digits only, as nearly all words are.
fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 18 {
        return None;
    }
    word.iter().try_fold(0u64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

fn count(word: &[u8]) -> std::result::Result<i32, &'static str> {
    let value = match number(word) {
        Some(whole) => whole as f64,
        None => std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN),
    };
    match value {
        value if value.is_nan() => Err("which is not a number"),
        value if value < 0.0 => Err("which is negative"),
        value if value > f64::from(i32::MAX) => Err("which is more than 2147483647"),
        value if value.fract() != 0.0 => Err("which is not a whole number"),
        value => Ok(value as i32),
    }
}

/// The rows of the cells, sorted.
fn rows(
    source: Source,
    entries: &[Vec<Entry>],
    cells: &[String],
    guide_names: &[String],
) -> Result<(Vec<i32>, Vec<i32>, Vec<f64>)> {
    let n: usize = entries.iter().map(Vec::len).sum();
    if n > i32::MAX as usize {
        return Err(
            source.counts(format!("{n} counts are more than the 2147483647 that kaichi can hold. Split the file."))
        );
    }
    let mut indptr = vec![0i32; cells.len() + 1];
    let all = || entries.iter().flatten();
    all().for_each(|entry| indptr[entry.cell as usize + 1] += 1);
    for cell in 0..cells.len() {
        indptr[cell + 1] += indptr[cell];
    }
    let mut next = indptr.clone();
    let mut placed = vec![(0, 0); n];
    for entry in all() {
        let at = &mut next[entry.cell as usize];
        placed[*at as usize] = (entry.guide, entry.count);
        *at += 1;
    }
    for (cell, bounds) in indptr.windows(2).enumerate() {
        let row = &mut placed[bounds[0] as usize..bounds[1] as usize];
        row.sort_unstable_by_key(|&(guide, _)| guide);
        if let Some(twice) = row.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(source.format_in(format!(
                "the guide \"{}\" stands more than once in cell \"{}\".\n  Each pair has one entry: the file is damaged.",
                guide_names[twice[0].0 as usize], cells[cell]
            )));
        }
    }
    let (guides, counts) = placed.into_iter().map(|(guide, count)| (guide, f64::from(count))).unzip();
    Ok((indptr, guides, counts))
}
