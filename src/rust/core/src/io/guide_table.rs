//! The guide table of a library: a CSV or TSV, gzipped or not, with a header, one row for each guide.
use std::collections::HashMap;
use std::path::Path;

use super::features::check_names;
use super::h5ad::values::{quoted, quoted_to, Source};
use super::{foreign, text, words};
use crate::Result;

/// Columns by name, of one length; empty fields are none. One of them is `guide_id`, without such fields, each value once.
pub type GuideTable = Vec<(String, Vec<Option<String>>)>;

/// The table, and what is to be said of it.
pub fn read(path: &Path) -> Result<(GuideTable, Vec<String>)> {
    let source = Source(path);
    if !path.exists() {
        return Err(source.file("does not exist. Check the path and the working directory."));
    }
    if let Some(text) = foreign::file(source) {
        return Err(source.file(text));
    }
    let text = text::read(source)?;
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let delimiter = text::delimiter(header).unwrap_or(b',');
    let wrong = |error: csv::Error| source.format(format!("cannot be read: {error}.\n  Give a CSV or TSV in UTF-8."));
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
    let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(|name| name.trim().to_owned()).collect();
    let mut table: GuideTable = names.iter().map(|name| (name.clone(), vec![])).collect();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        // Rows of separators only, as spreadsheets write below a table.
        if record.iter().all(|field| field.trim().is_empty()) {
            continue;
        }
        for ((_, values), field) in table.iter_mut().zip(&record) {
            let field = field.trim();
            values.push((!field.is_empty()).then(|| field.to_owned()));
        }
    }
    // Columns without a name are the numbers of the rows, or nothing.
    table.retain(|(name, _)| !name.is_empty());
    let names: Vec<String> = table.iter().map(|(name, _)| name.clone()).collect();
    if let Some(twice) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
        return Err(source.format(format!("has two columns \"{}\". Keep one of them.", names[twice])));
    }
    let (added, choices) = synonyms(&names);
    let added: GuideTable = added.into_iter().map(|(name, from)| (name.to_owned(), table[from].1.clone())).collect();
    table.splice(0..0, added);
    let Some((_, ids)) = table.iter().find(|(name, _)| name == "guide_id") else {
        return Err(source.format(format!(
            "has no column \"guide_id\", nor one that others call so. Its columns: {}.\n  It needs a header, and one row for each guide.",
            quoted(&names)
        )));
    };
    let ids: Vec<String> = ids.iter().map(|id| id.clone().unwrap_or_default()).collect();
    check_names(source, &ids, "guide", "guide_id")?;
    Ok((table, choices))
}

/// The columns that a table lacks by these names but has by the names of others: each name, and the place of the column; and what is to
/// be said of them.
pub fn synonyms(columns: &[String]) -> (Vec<(&'static str, usize)>, Vec<String>) {
    let mut added: Vec<(&'static str, usize)> = vec![];
    let mut said = vec![];
    for (name, _) in words::GUIDE_COLUMNS {
        if columns.iter().any(|column| column == name) {
            continue;
        }
        let found = words::find_guide_column(columns, name);
        // Designs of libraries without ids name guides by their sequence.
        let found =
            found.or_else(|| (name == "guide_id").then(|| words::find_guide_column(columns, "sequence")).flatten());
        if let Some(at) = found {
            said.push(format!("\"{}\" as {name}", columns[at]));
            added.push((name, at));
        }
    }
    let mut choices = vec![];
    if !said.is_empty() {
        choices.push(format!("Taking of the guide table {}.", said.join(", ")));
    }
    let has = |name: &str| columns.iter().any(|column| column == name) || added.iter().any(|(added, _)| *added == name);
    if !has("target") {
        choices.push(
            "The guide table has no targets: no column target, nor one that others call so, such as target_gene_name. Calls get none."
                .to_owned(),
        );
    }
    (added, choices)
}

/// The rows of a table that was read from `path`, for guides in their order, without `guide_id`; and what is to be said of it. A
/// guide is found by its name, else by the name that Seurat gives it, as match_guides() of the R package does.
pub fn rows_of(path: &Path, table: &GuideTable, guides: &[String]) -> Result<(GuideTable, Vec<String>)> {
    let source = Source(path);
    let ids: Vec<&str> = table
        .iter()
        .find(|(name, _)| name == "guide_id")
        .map_or(vec![], |(_, ids)| ids.iter().map(|id| id.as_deref().unwrap_or_default()).collect());
    let place: HashMap<&str, usize> = ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
    let mut rows: Vec<Option<usize>> = guides.iter().map(|guide| place.get(guide.as_str()).copied()).collect();

    let mut taken = vec![false; ids.len()];
    rows.iter().flatten().for_each(|&row| taken[row] = true);
    let mut as_seurat: HashMap<String, Vec<usize>> = HashMap::new();
    for (row, id) in ids.iter().enumerate().filter(|(row, _)| !taken[*row]) {
        as_seurat.entry(id.replace(['_', '|'], "-")).or_default().push(row);
    }
    for (guide, row) in guides.iter().zip(&mut rows).filter(|(_, row)| row.is_none()) {
        match as_seurat.get(guide).map(Vec::as_slice) {
            Some(&[one]) => *row = Some(one),
            Some(several) => {
                let names: Vec<&str> = several.iter().map(|&row| ids[row]).collect();
                return Err(source.names(format!(
                    "the guide \"{guide}\" of the counts could be {}: Seurat turns _ and | into -.\n  Give guide_id the names that \
                     the counts have.",
                    quoted(&names)
                )));
            }
            None => {}
        }
    }
    if rows.iter().all(Option::is_none) {
        if let Some((name, found)) = by_other_column(table, guides) {
            let columns = table.iter().filter(|(name, _)| name != "guide_id");
            let of_rows = |values: &[Option<String>]| found.iter().map(|&row| values[row].clone()).collect();
            let choice = format!(
                "Finding the guides of the counts in the column \"{name}\" of the guide table, not in guide_id."
            );
            return Ok((columns.map(|(name, values)| (name.clone(), of_rows(values))).collect(), vec![choice]));
        }
    }
    let missed: Vec<&String> =
        guides.iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(guide, _)| guide).collect();
    if missed.len() == guides.len() {
        return Err(source.names(format!(
            "no guide of the counts is in guide_id. They have {}; the table has {}.",
            quoted_to(3, guides),
            quoted_to(3, &ids)
        )));
    }
    if !missed.is_empty() {
        return Err(source.names(format!(
            "guide_id lacks {} of the counts: {}.\n  Add them to the table.",
            count_of(missed.len()),
            quoted_to(5, &missed)
        )));
    }
    let rows: Vec<usize> = rows.into_iter().flatten().collect();

    let mut choices = vec![];
    let renamed: Vec<(&str, &str)> = rows
        .iter()
        .zip(guides)
        .map(|(&row, guide)| (ids[row], guide.as_str()))
        .filter(|(id, guide)| id != guide)
        .collect();
    if !renamed.is_empty() {
        let (of_table, of_counts): (Vec<&str>, Vec<&str>) = renamed.into_iter().unzip();
        choices.push(format!(
            "Taking {} of `guides` as {} of the counts, where _ and | have become -.",
            quoted_to(3, &of_table),
            quoted_to(3, &of_counts)
        ));
    }
    rows.iter().for_each(|&row| taken[row] = true);
    let unknown: Vec<&str> = ids.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(id, _)| *id).collect();
    if !unknown.is_empty() {
        let n = count_of(unknown.len());
        choices.push(format!("{n} of `guides` not in the counts, left out: {}.", quoted_to(5, &unknown)));
    }
    let columns = table.iter().filter(|(name, _)| name != "guide_id");
    let of_rows = |values: &[Option<String>]| rows.iter().map(|&row| values[row].clone()).collect();
    Ok((columns.map(|(name, values)| (name.clone(), of_rows(values))).collect(), choices))
}

/// Another column that names all guides, such as their sequences, each once; and their rows.
fn by_other_column<'a>(table: &'a GuideTable, guides: &[String]) -> Option<(&'a str, Vec<usize>)> {
    table.iter().filter(|(name, _)| name != "guide_id").find_map(|(name, values)| {
        let mut place: HashMap<&str, usize> = HashMap::new();
        for (row, value) in values.iter().enumerate().filter_map(|(row, value)| Some((row, value.as_deref()?))) {
            // A value of several guides is no name.
            if place.insert(value, row).is_some() {
                return None;
            }
        }
        let rows: Option<Vec<usize>> = guides.iter().map(|guide| place.get(guide.as_str()).copied()).collect();
        rows.map(|rows| (name.as_str(), rows))
    })
}

fn count_of(n: usize) -> String {
    format!("{n} guide{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &[u8]) -> Result<GuideTable> {
        let path = std::env::temp_dir().join(format!("kaichi-{}-table-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let table = read(&path).map(|(table, _)| table);
        std::fs::remove_file(&path).unwrap();
        table
    }

    #[test]
    fn commas_and_tabs_separate() {
        let expected = |other: &str| {
            let text = |text: &str| Some(text.to_owned());
            vec![("guide_id".to_owned(), vec![text("g,1"), text("h")]), (other.to_owned(), vec![text("A"), None])]
        };
        let csv = read_text("csv", b"\xef\xbb\xbfguide_id,target\r\n\"g,1\",A\r\nh,\r\n").unwrap();
        assert_eq!(csv, expected("target"));
        assert_eq!(read_text("tsv", b"guide_id\ttype, if known\ng,1\tA\nh\t\n").unwrap(), expected("type, if known"));
    }

    #[test]
    fn rows_are_found_by_name_then_by_seurats() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let table = read_text("rows", b"guide_id,target\na_1,A\nb-1,B\nb_1,C\nx_1,X\nx|1,Y\n").unwrap();
        let of = |guides: &[&str]| rows_of(Path::new("t.csv"), &table, &names(guides));
        let (rows, said) = of(&["b-1", "a-1"]).unwrap();
        assert_eq!(rows, [("target".to_owned(), vec![Some("B".to_owned()), Some("A".to_owned())])]);
        assert_eq!(
            said,
            [
                "Taking \"a_1\" of `guides` as \"a-1\" of the counts, where _ and | have become -.",
                "3 guides of `guides` not in the counts, left out: \"b_1\", \"x_1\", \"x|1\"."
            ]
        );
        let text = |guides: &[&str]| of(guides).err().unwrap().to_string();
        assert!(text(&["a_1", "x-1"]).contains("\"x-1\" of the counts could be \"x_1\", \"x|1\""));
        assert!(text(&["a_1", "n", "m"]).contains("guide_id lacks 2 guides of the counts: \"n\", \"m\"."));
        assert!(text(&["n"]).contains("They have \"n\"; the table has \"a_1\", \"b-1\", \"b_1\" and 2 more."));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = |name: &str, content: &[u8]| read_text(name, content).err().unwrap().to_string();
        assert!(text("none", b"number,target\na,b\n")
            .contains("no column \"guide_id\", nor one that others call so. Its columns: \"number\", \"target\""));
        assert!(text("twice", b"guide_id,target\na,b\na,c\n")
            .contains("\"a\" stands more than once in guide_id (entries 1 and 2)"));
        assert!(text("empty", b"guide_id,target\na,b\n,c\n").contains("guide 2 has no name"));
        assert!(text("short", b"guide_id,target\na\n").contains("cannot be read"));
        assert!(text("rows", b"guide_id,target\n").contains("names no guides"));
        assert!(text("columns", b"guide_id,x,x\na,b,c\n").contains("two columns \"x\""));
    }
}
