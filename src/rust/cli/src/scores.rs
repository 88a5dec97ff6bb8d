//! The scores file, between `score` and `decide`: CSV after comment lines, all that a decision needs.
//!
//! ```text
//! # kaichi scores 1
//! # version: 0.1.0
//! # model: poisson_gauss
//! # rule: min_confidence 0.8       (or: quantile 0.05)
//! # guides: 2
//! # cells: 3
//! # counts: 2
//! cell_barcode,guide_id,umi_count,score
//! ,guide_a,,                       every guide, in input order
//! ,guide_b,,
//! AAAC,guide_a,7,0.9987            every stored count of a cell, guides in the order above
//! AAAG,,,                          a cell without guide UMIs
//! AAAT,guide_b,1,0.001
//! ```
//!
//! Cells stand in input order; ties are decided by it and by the order of the guides. Scores read back bit for bit.
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use kaichi_core::decide::Cut;
use kaichi_core::io::GuideFile;
use kaichi_core::{Error, Result};

use crate::csv;

const FIRST_LINE: &str = "# kaichi scores 1";
const COLUMNS: [&str; 4] = ["cell_barcode", "guide_id", "umi_count", "score"];

#[derive(Debug, PartialEq)]
pub struct ScoresFile {
    pub model: String,
    /// How the model decides when the user says nothing.
    pub cut: Cut,
    pub counts: GuideFile,
    pub score: Vec<f64>,
}

pub fn write(out: &mut dyn Write, model: &str, cut: Cut, counts: &GuideFile, score: &[f64]) -> io::Result<()> {
    let (rule, value) = (cut.name(), cut.value());
    writeln!(out, "{FIRST_LINE}")?;
    writeln!(out, "# version: {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "# model: {model}")?;
    writeln!(out, "# rule: {rule} {}", csv::number(value))?;
    writeln!(out, "# guides: {}", counts.guide_names.len())?;
    writeln!(out, "# cells: {}", counts.cell_names.len())?;
    writeln!(out, "# counts: {}", counts.counts.len())?;
    csv::record(out, COLUMNS)?;
    for guide in &counts.guide_names {
        csv::record(out, ["", guide, "", ""])?;
    }
    let guides: Vec<Cow<str>> = counts.guide_names.iter().map(|guide| csv::field(guide)).collect();
    for (cell, name) in counts.cell_names.iter().enumerate() {
        let name = csv::field(name);
        let range = counts.indptr[cell] as usize..counts.indptr[cell + 1] as usize;
        if range.is_empty() {
            writeln!(out, "{name},,,")?;
        }
        for at in range {
            let guide = &guides[counts.guides[at] as usize];
            writeln!(out, "{name},{guide},{},{}", counts.counts[at], csv::number(score[at]))?;
        }
    }
    Ok(())
}

/// Reads the file at `path`, or standard input where it is "-".
pub fn read(path: &Path) -> Result<ScoresFile> {
    let mut bytes = vec![];
    let (name, result) = if path == Path::new("-") {
        ("Standard input".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(drop))
    } else {
        let result = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map(drop);
        (format!("The file \"{}\"", path.display()), result)
    };
    result.map_err(|error| {
        Error::File(match error.kind() {
            io::ErrorKind::NotFound => format!("{name} does not exist. Check the path and the working directory."),
            _ => format!("{name} cannot be read: {error}."),
        })
    })?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.lines().next() == Some(FIRST_LINE));
    let text = text.ok_or_else(|| {
        Error::Format(format!(
            "{name} is no scores file: it does not start with the line \"{FIRST_LINE}\", or is not UTF-8.\n  Write one \
             with kaichi score."
        ))
    })?;
    parse(text, &name)
}

fn parse(text: &str, name: &str) -> Result<ScoresFile> {
    let broken = |line: usize, what: &str| {
        Error::Format(format!(
            "{name} breaks the format of scores in line {line}: {what}.\n  Write it again with kaichi score."
        ))
    };
    let wrong = |what: &str| Error::Format(format!("{name} {what}.\n  Write it again with kaichi score."));

    let mut header = HashMap::new();
    let (mut start, mut line) = (0, 1);
    while text[start..].starts_with('#') {
        let end = text[start..].find('\n').map_or(text.len(), |length| start + length + 1);
        if let Some((key, value)) = text[start..end].trim_start_matches('#').split_once(':') {
            header.insert(key.trim(), value.trim());
        }
        (start, line) = (end, line + 1);
    }
    let stated = |key: &str| header.get(key).copied().ok_or_else(|| wrong(&format!("has no line \"# {key}: ...\"")));
    let model = stated("model")?.to_owned();
    let rule = stated("rule")?;
    let cut = rule.split_once(' ').and_then(|(name, value)| {
        let value = value.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
        Cut::new(name, value)
    });
    let cut = cut.ok_or_else(|| wrong(&format!("has a rule that kaichi does not know: \"{rule}\"")))?;

    let mut reader = csv::Reader::new(&text[start..], line);
    let mut fields: Vec<Cow<str>> = vec![];
    reader.read(&mut fields).map_err(|what| broken(reader.line, what))?;
    if fields != COLUMNS {
        return Err(broken(reader.line, &format!("the columns are not {}", COLUMNS.join(","))));
    }
    let mut counts = GuideFile {
        indptr: vec![0],
        guides: vec![],
        counts: vec![],
        cell_names: vec![],
        guide_names: vec![],
        ..GuideFile::default()
    };
    let mut score = vec![];
    let mut code_of: HashMap<String, i32> = HashMap::new();
    let mut line_of: HashMap<String, usize> = HashMap::new();
    let mut no_counts = false;
    while reader.read(&mut fields).map_err(|what| broken(reader.line, what))? {
        let line = reader.line;
        let [cell, guide, umis, value] = fields.as_slice() else {
            return Err(broken(line, &format!("there are {} fields, not {}", fields.len(), COLUMNS.len())));
        };
        let empty = umis.is_empty() && value.is_empty();
        if cell.is_empty() {
            if guide.is_empty() || !empty || !counts.cell_names.is_empty() {
                return Err(broken(line, "a line without a cell names one guide, before all cells"));
            }
            if code_of.insert(guide.to_string(), counts.guide_names.len() as i32).is_some() {
                return Err(Error::Names(format!("{name} lists the guide \"{guide}\" twice (line {line}).")));
            }
            counts.guide_names.push(guide.to_string());
            continue;
        }
        let known = counts.cell_names.last().is_some_and(|last| last == cell);
        if !known {
            if let Some(first) = line_of.insert(cell.to_string(), line) {
                return Err(Error::Names(format!(
                    "{name} has the cell \"{cell}\" in lines {first} and {line}, with other cells between.\n  Cell \
                     names are unique, and the lines of a cell stand together."
                )));
            }
            counts.cell_names.push(cell.to_string());
            counts.indptr.push(counts.guides.len() as i32);
        }
        let no_count = guide.is_empty() && empty;
        if known && (no_counts || no_count) {
            return Err(broken(line, &format!("the cell \"{cell}\" has lines with and without a count")));
        }
        no_counts = no_count;
        if no_counts {
            continue;
        }
        let Some(&code) = code_of.get(guide.as_ref()) else {
            return Err(Error::Names(format!(
                "{name} has the guide \"{guide}\" in line {line}, which is not listed before the cells."
            )));
        };
        let first = counts.indptr[counts.cell_names.len() - 1] as usize;
        if counts.guides.len() > first && counts.guides.last() >= Some(&code) {
            return Err(broken(line, &format!("the guides of the cell \"{cell}\" are not in the order of their list")));
        }
        let count = umis.parse::<i32>().ok().filter(|&count| count > 0).ok_or_else(|| {
            Error::Counts(format!(
                "{name} has the count \"{umis}\" in line {line}; counts are whole numbers from 1 to 2147483647."
            ))
        })?;
        let value = value.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
        score.push(value.ok_or_else(|| broken(line, "the score is no number of 0 or more"))?);
        counts.guides.push(code);
        counts.counts.push(f64::from(count));
        let n = i32::try_from(counts.guides.len()).map_err(|_| {
            Error::Counts(format!("{name} holds more than the 2147483647 counts that kaichi can hold."))
        })?;
        if let Some(end) = counts.indptr.last_mut() {
            *end = n;
        }
    }
    let sizes =
        [("guides", counts.guide_names.len()), ("cells", counts.cell_names.len()), ("counts", counts.counts.len())];
    for (what, n) in sizes {
        if stated(what)? != n.to_string() {
            return Err(wrong(&format!("holds {n} {what} but states {}, so it may be cut short", stated(what)?)));
        }
    }
    Ok(ScoresFile { model, cut, counts, score })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ScoresFile {
        let text = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        ScoresFile {
            model: "gauss".into(),
            cut: Cut::MinConfidence(0.8),
            counts: GuideFile {
                indptr: vec![0, 0, 2, 3, 3],
                guides: vec![0, 2, 2],
                counts: vec![7.0, 2147483647.0, 1.0],
                cell_names: text(&["empty", "a,b", "#c", "last"]),
                guide_names: text(&["g \"1\"", "none", "g\n3"]),
                ..GuideFile::default()
            },
            score: vec![0.1 + 0.2, 5e-324, 1.0 - f64::EPSILON / 2.0],
        }
    }

    fn written(file: &ScoresFile) -> String {
        let mut text = vec![];
        write(&mut text, &file.model, file.cut, &file.counts, &file.score).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_bit_for_bit() {
        let mut file = example();
        for cut in [Cut::MinConfidence(0.8), Cut::TopShare(1.0 / 3.0)] {
            file.cut = cut;
            let text = written(&file);
            assert_eq!(parse(&text, "it").unwrap(), file);
            assert_eq!(parse(&text.replace("\n#", "\r\n#"), "it").unwrap(), file);
        }
    }

    #[test]
    fn any_cut_through_the_file_is_seen() {
        let text = written(&example());
        for (end, _) in text.char_indices() {
            assert!(parse(&text[..end], "it").is_err(), "{:?}", &text[..end]);
        }
    }

    #[test]
    fn broken_files_are_errors_that_name_the_line() {
        let head = "# kaichi scores 1\n# model: umi\n# rule: min_confidence 0\n# guides: 2\n# cells: 2\n# counts: 2\n\
                    cell_barcode,guide_id,umi_count,score\n,g,,\n,h,,\n";
        let text = |lines: &str| parse(&format!("{head}{lines}"), "it").map_err(|e| format!("{} {e}", e.kind()));
        assert!(text("a,g,1,0\nb,h,2,1\n").is_ok());
        for (lines, kind, words) in [
            ("a,g,1,0\nb,h,2\n", "format", "line 11: there are 3 fields"),
            ("a,g,1,0\nb,x,2,1\n", "names", "\"x\" in line 11"),
            ("a,g,1,0\nb,h,2,1\na,h,1,1\n", "names", "\"a\" in lines 10 and 12"),
            ("a,g,1,0\nb,h,0,1\n", "counts", "\"0\" in line 11"),
            ("a,g,1,0\nb,h,1.5,1\n", "counts", "\"1.5\" in line 11"),
            ("a,g,1,0\nb,h,2,NaN\n", "format", "line 11: the score"),
            ("a,g,1,0\nb,h,2,-1\n", "format", "line 11: the score"),
            ("a,h,1,0\na,g,2,1\nb,,,\n", "format", "line 11: the guides of the cell \"a\""),
            ("a,g,1,0\na,g,2,1\nb,,,\n", "format", "line 11: the guides of the cell \"a\""),
            ("a,g,1,0\n,i,,\nb,h,2,1\n", "format", "line 11: a line without a cell"),
            (",g,,\na,g,1,0\nb,h,2,1\n", "names", "\"g\" twice (line 10)"),
            ("a,,,\na,g,1,0\nb,h,2,1\n", "format", "line 11"),
            ("a,g,1,0\nb,,,\n", "format", "holds 1 counts but states 2"),
            ("a,g,1,0\nb,\"h,2,1\n", "format", "line 11: a quoted field has no end"),
        ] {
            let error = text(lines).expect_err(lines);
            assert!(error.starts_with(kind) && error.contains(words), "{lines:?}: {error}");
        }
    }

    #[test]
    fn headers_must_be_complete() {
        let text = written(&example());
        for line in ["# model: gauss\n", "# rule: min_confidence 0.8\n", "# cells: 4\n"] {
            assert!(parse(&text.replace(line, ""), "it").unwrap_err().to_string().contains("has no line"), "{line}");
        }
        for rule in ["min_confidence 2", "min_confidence", "most 0.5"] {
            let text = text.replace("min_confidence 0.8", rule);
            assert!(parse(&text, "it").unwrap_err().to_string().contains("does not know"), "{rule}");
        }
    }
}
