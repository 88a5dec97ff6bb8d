//! The tables of results, as assign_guides() of the R package returns them.
use std::io::{self, Write};

use kaichi_core::decide::Calls;
use kaichi_core::diagnose::Diagnosis;
use kaichi_core::fit::{Column, FitTable};
use kaichi_core::io::GuideFile;

use crate::csv::{field, logical, number, record};

/// Everything that a decision rests on.
pub struct Called<'a> {
    pub file: &'a GuideFile,
    pub score: &'a [f64],
    pub calls: &'a Calls,
    /// Of each cell, for scores that are posteriors.
    pub set_probability: Option<&'a [f64]>,
}

impl Called<'_> {
    /// One row per cell, in input order.
    pub fn cells(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "cell_barcode,guide_id,umi_count,assignment_confidence,is_unassigned,is_multi_infected,n_guides_detected,\
             set_probability"
        )?;
        for (cell, name) in self.file.cell_names.iter().enumerate() {
            let n = self.calls.indptr[cell + 1] - self.calls.indptr[cell];
            let best = self.calls.best[cell];
            write!(out, "{},", field(name))?;
            match best {
                Some(at) => self.call(out, at)?,
                None => write!(out, ",,")?,
            }
            let probability = self.set_probability.map_or(f64::NAN, |of| of[cell]);
            writeln!(out, ",{},{},{n},{}", logical(best.is_none()), logical(n > 1), number(probability))?;
        }
        Ok(())
    }

    /// One row per called pair.
    pub fn pairs(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "cell_barcode,guide_id,umi_count,assignment_confidence")?;
        for (cell, name) in self.file.cell_names.iter().enumerate() {
            for &at in &self.calls.pairs[self.calls.indptr[cell]..self.calls.indptr[cell + 1]] {
                write!(out, "{},", field(name))?;
                self.call(out, at)?;
                writeln!(out)?;
            }
        }
        Ok(())
    }

    /// guide_id,umi_count,assignment_confidence
    fn call(&self, out: &mut dyn Write, at: usize) -> io::Result<()> {
        let guide = &self.file.guide_names[self.file.guides[at] as usize];
        write!(out, "{},{},{}", field(guide), self.file.counts[at], number(self.score[at]))
    }
}

/// Columns as text, of one length.
pub struct Fits {
    columns: Vec<(String, Vec<String>)>,
}

impl Fits {
    /// Codes become names: the column guide becomes guide_id, batch its levels, gamma_0 the level it belongs to.
    pub fn named(table: &FitTable, file: &GuideFile) -> Self {
        let batches = file.batches();
        let batch = |code: usize| match &batches {
            None => Some("all"),
            Some(levels) => levels.get(code).copied(),
        };
        let name_of = |code: Option<i32>, name: &dyn Fn(usize) -> Option<String>| {
            code.and_then(|code| name(code as usize)).unwrap_or_default()
        };
        let columns = table
            .columns
            .iter()
            .map(|(name, column)| match (name.as_str(), column) {
                ("guide", Column::Integer(codes)) => {
                    let guide = |code: usize| file.guide_names.get(code).cloned();
                    ("guide_id".to_owned(), codes.iter().map(|&code| name_of(code, &guide)).collect())
                }
                ("batch", Column::Integer(codes)) => {
                    let batch = |code: usize| batch(code).map(str::to_owned);
                    (name.clone(), codes.iter().map(|&code| name_of(code, &batch)).collect())
                }
                _ => {
                    let level = name.strip_prefix("gamma_").and_then(|code| batch(code.parse().ok()?));
                    (level.map_or(name.clone(), |level| format!("gamma_{level}")), texts(column))
                }
            })
            .collect();
        Self { columns }
    }

    /// Adds what the calls of each guide are worth to a table with a row per guide.
    pub fn with_calls(mut self, table: &FitTable, diagnoses: &[Diagnosis]) -> Self {
        let Some((_, Column::Integer(guides))) = table.columns.iter().find(|(name, _)| name == "guide") else {
            return self;
        };
        let mut add = |name: &str, text: &dyn Fn(&Diagnosis) -> String| {
            let of =
                |guide: &Option<i32>| guide.and_then(|guide| diagnoses.get(guide as usize)).map_or(String::new(), text);
            self.columns.push((name.into(), guides.iter().map(of).collect()));
        };
        add("n_cells_called", &|guide| guide.n_cells_called.to_string());
        add("min_umi_called", &|guide| guide.min_umi_called.map_or(String::new(), number));
        add("expected_cells", &|guide| number(guide.expected_cells));
        add("expected_precision", &|guide| number(guide.expected_precision));
        add("expected_recall", &|guide| number(guide.expected_recall));
        add("separation", &|guide| number(guide.separation));
        add("warning", &|guide| guide.warning.clone());
        self
    }

    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        record(out, self.columns.iter().map(|(name, _)| name))?;
        let n_rows = self.columns.first().map_or(0, |(_, values)| values.len());
        for row in 0..n_rows {
            record(out, self.columns.iter().map(|(_, values)| &values[row]))?;
        }
        Ok(())
    }
}

/// How the fit of each guide ended; nothing for a table with other rows.
pub fn guide_status(table: &FitTable) -> Vec<String> {
    let column = |name: &str| table.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column);
    match (column("guide"), column("status")) {
        (Some(_), Some(status)) => texts(status),
        _ => vec![],
    }
}

fn texts(column: &Column) -> Vec<String> {
    fn present<T>(values: &[Option<T>], text: impl Fn(&T) -> String) -> Vec<String> {
        values.iter().map(|value| value.as_ref().map_or(String::new(), &text)).collect()
    }
    match column {
        Column::Real(values) => values.iter().map(|&x| number(x)).collect(),
        Column::Integer(values) => present(values, i32::to_string),
        Column::Logical(values) => present(values, |&x| logical(x).to_owned()),
        Column::Text(values) => present(values, String::clone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaichi_core::decide::{decide, set_probability, Cut, Rule};
    use kaichi_core::diagnose::diagnose;

    fn file(batch: Option<[&str; 3]>) -> GuideFile {
        GuideFile {
            indptr: vec![0, 2, 2, 4],
            guides: vec![0, 1, 0, 1],
            counts: vec![5.0, 9.0, 3.0, 1.0],
            cell_names: ["a", "b", "c"].map(String::from).to_vec(),
            guide_names: ["g,1", "h"].map(String::from).to_vec(),
            batch: batch.map(|names| names.map(String::from).to_vec()),
            ..GuideFile::default()
        }
    }

    fn text(f: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut text = vec![];
        f(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn calls_become_rows() {
        let file = file(None);
        let counts = file.guide_counts().unwrap();
        let score = [0.9, 0.95, 0.85, 0.1];
        let calls = decide(&counts, &score, &Rule { cut: Cut::MinConfidence(0.8), min_umi: 0.0 }).unwrap();
        let called = |set_probability| Called { file: &file, score: &score, calls: &calls, set_probability };
        let heads =
            "cell_barcode,guide_id,umi_count,assignment_confidence,is_unassigned,is_multi_infected,n_guides_detected";
        assert_eq!(
            text(|out| called(None).cells(out)),
            format!(
                "{heads},set_probability\na,h,9,0.95,FALSE,TRUE,2,\nb,,,,TRUE,FALSE,0,\n\
                 c,\"g,1\",3,0.85,FALSE,FALSE,1,\n"
            )
        );
        let sets = set_probability(&counts, &score, &calls);
        let with_sets = text(|out| called(Some(&sets)).cells(out));
        let last: Vec<&str> = with_sets.lines().skip(1).filter_map(|line| line.rsplit(',').next()).collect();
        assert_eq!(last, sets.iter().copied().map(number).collect::<Vec<_>>());
        assert_eq!(
            text(|out| called(None).pairs(out)),
            "cell_barcode,guide_id,umi_count,assignment_confidence\na,\"g,1\",5,0.9\na,h,9,0.95\nc,\"g,1\",3,0.85\n"
        );
        let table = FitTable::unfitted("guide", &counts.cells_per_guide());
        let fits = Fits::named(&table, &file)
            .with_calls(&table, &diagnose(&counts, &score, &calls, true, &guide_status(&table)));
        assert_eq!(
            text(|out| fits.write(out)),
            "guide_id,status,n_cells,note,n_cells_called,min_umi_called,expected_cells,expected_precision,expected_recall,\
             separation,warning\n\
             \"g,1\",ok,2,,2,3,1.75,0.875,1,0.005714285714285561,few cells; present in most cells\n\
             h,ok,2,,1,9,1.05,0.95,0.9047619047619047,0.7243107769423557,few cells\n"
        );
    }

    #[test]
    fn codes_of_batches_become_names() {
        let table = FitTable {
            columns: vec![
                ("batch".into(), Column::Integer(vec![Some(1), Some(0)])),
                ("gamma_1".into(), Column::Real(vec![0.5, f64::NAN])),
                ("gamma_x".into(), Column::Logical(vec![Some(true), None])),
            ],
            ..FitTable::default()
        };
        let named = |file: &GuideFile| text(|out| Fits::named(&table, file).write(out));
        assert_eq!(named(&file(Some(["z", "y", "z"]))), "batch,gamma_z,gamma_x\nz,0.5,TRUE\ny,,\n");
        assert!(named(&file(None)).ends_with("\nall,0.5,TRUE\nall,,\n"));
    }
}
