//! The guide table of a library: a CSV or TSV, gzipped or not, with a header, one row for each guide.
use std::io::Read;
use std::path::Path;

use super::features::check_names;
use super::h5ad::values::{quoted, Source};
use super::mtx::open;
use crate::Result;

/// Columns by name, of one length; empty fields are none. One of them is `guide_id`, without such fields, each value once.
pub type GuideTable = Vec<(String, Vec<Option<String>>)>;

pub fn read(path: &Path) -> Result<GuideTable> {
    let source = Source(path);
    if !path.exists() {
        return Err(source.file("does not exist. Check the path and the working directory."));
    }
    let mut text = vec![];
    open(source)?.read_to_end(&mut text).map_err(|error| source.file(format!("cannot be read: {error}.")))?;
    // Spreadsheets put a mark of UTF-8 first.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let header = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let delimiter = if header.contains(&b'\t') { b'\t' } else { b',' };
    let wrong = |error: csv::Error| source.format(format!("cannot be read: {error}.\n  Give a CSV or TSV in UTF-8."));
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(|name| name.trim().to_owned()).collect();
    let mut table: GuideTable = names.iter().map(|name| (name.clone(), vec![])).collect();
    for record in reader.records() {
        for ((_, values), field) in table.iter_mut().zip(&record.map_err(wrong)?) {
            values.push((!field.is_empty()).then(|| field.to_owned()));
        }
    }
    if let Some(twice) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
        return Err(source.format(format!("has two columns \"{}\". Keep one of them.", names[twice])));
    }
    let Some((_, ids)) = table.iter().find(|(name, _)| name == "guide_id") else {
        return Err(source.format(format!(
            "has no column \"guide_id\". Its columns: {}.\n  It needs a header, and one row for each guide.",
            quoted(&names)
        )));
    };
    let ids: Vec<String> = ids.iter().map(|id| id.clone().unwrap_or_default()).collect();
    check_names(source, &ids, "guide", "guide_id")?;
    Ok(table)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &[u8]) -> Result<GuideTable> {
        let path = std::env::temp_dir().join(format!("kaichi-{}-table-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let table = read(&path);
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
    fn what_is_wrong_is_said() {
        let text = |name: &str, content: &[u8]| read_text(name, content).err().unwrap().to_string();
        assert!(
            text("none", b"guide,target\na,b\n").contains("no column \"guide_id\". Its columns: \"guide\", \"target\"")
        );
        assert!(text("twice", b"guide_id,target\na,b\na,c\n")
            .contains("\"a\" stands more than once in guide_id (entries 1 and 2)"));
        assert!(text("empty", b"guide_id,target\na,b\n,c\n").contains("guide 2 has no name"));
        assert!(text("short", b"guide_id,target\na\n").contains("cannot be read"));
        assert!(text("rows", b"guide_id,target\n").contains("names no guides"));
        assert!(text("columns", b"guide_id,x,x\na,b,c\n").contains("two columns \"x\""));
    }
}
