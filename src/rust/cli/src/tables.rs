//! The tables of results, as assign_guides() of the R package returns them and write_calls() writes them.
use std::io::{self, Write};

use kaichi_core::fit::Column;

use crate::numbers::{logical, number};
use crate::screen::{Decision, Screen};

/// One result, written as text.
pub type Writer<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// Writes records; fields are quoted where they need it (RFC 4180).
pub fn records<S: AsRef<[u8]>>(
    out: &mut dyn Write,
    header: &[&str],
    rows: impl Iterator<Item = Vec<S>>,
) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(header)?;
    for row in rows {
        csv.write_record(row)?;
    }
    csv.flush()
}

/// One row per cell, in input order.
pub fn cells(screen: &Screen, decision: &Decision, out: &mut dyn Write) -> io::Result<()> {
    let target = screen.target();
    let mut header = vec![
        "cell_barcode",
        "guide_id",
        "umi_count",
        "assignment_confidence",
        "is_unassigned",
        "is_multi_infected",
        "n_guides_detected",
        "set_probability",
    ];
    let samples = &screen.counts.samples;
    let known: Vec<_> = samples.columns.iter().map(|(name, values)| (name, samples.of_cells(values))).collect();
    header.extend(known.iter().map(|(name, _)| name.as_str()));
    header.extend(target.map(|_| "target"));
    let row = |(cell, name): (usize, &String)| {
        let n = decision.calls.indptr[cell + 1] - decision.calls.indptr[cell];
        let best = decision.calls.best[cell];
        let [guide, umis, score] = best.map_or([const { String::new() }; 3], |at| call(screen, at));
        let probability = decision.set_probability.as_ref().map_or(f64::NAN, |of| of[cell]);
        let (none, several) = (logical(best.is_none()).to_owned(), logical(n > 1).to_owned());
        let mut row = vec![name.clone(), guide, umis, score, none, several, n.to_string(), number(probability)];
        row.extend(known.iter().map(|(_, values)| values[cell].clone().unwrap_or_default()));
        row.extend(target.map(|of| best.map_or(String::new(), |at| target_of(screen, of, at))));
        row
    };
    records(out, &header, screen.counts.cell_names.iter().enumerate().map(row))
}

/// One row per called pair: cell, guide, UMIs and, but for crispat's, the confidence and the target.
pub fn pairs(screen: &Screen, decision: &Decision, header: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let calls = &decision.calls;
    let target = screen.target().filter(|_| *header == PAIRS);
    let header = [header, target.map_or(&[][..], |_| &["target"])].concat();
    let of_cell = |(cell, name): (usize, &'_ String)| {
        let name = name.clone();
        calls.pairs[calls.indptr[cell]..calls.indptr[cell + 1]]
            .iter()
            .map(move |&at| (name.clone(), at))
            .collect::<Vec<_>>()
    };
    let rows = screen.counts.cell_names.iter().enumerate().flat_map(of_cell).map(|(cell, at)| {
        let mut row = vec![cell];
        row.extend(call(screen, at));
        row.extend(target.map(|of| target_of(screen, of, at)));
        row.truncate(header.len());
        row
    });
    records(out, &header, rows)
}

pub const PAIRS: [&str; 4] = ["cell_barcode", "guide_id", "umi_count", "assignment_confidence"];
pub const CRISPAT: [&str; 3] = ["cell", "gRNA", "UMI_counts"];

fn call(screen: &Screen, at: usize) -> [String; 3] {
    let counts = &screen.counts;
    [counts.guide_names[counts.guides[at] as usize].clone(), number(counts.counts[at]), number(screen.score[at])]
}

fn target_of(screen: &Screen, of_guide: &[Option<String>], at: usize) -> String {
    of_guide[screen.counts.guides[at] as usize].clone().unwrap_or_default()
}

/// Columns of one length; `guides` names the rows, where they are guides.
pub fn columns(guides: Option<&[String]>, columns: &[(String, Column)], out: &mut dyn Write) -> io::Result<()> {
    let mut names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let mut values: Vec<Vec<String>> = columns.iter().map(|(_, column)| texts(column)).collect();
    if let Some(guides) = guides {
        names.insert(0, "guide_id");
        values.insert(0, guides.to_vec());
    }
    let n = values.first().map_or(0, Vec::len);
    records(out, &names, (0..n).map(|row| values.iter().map(|column| column[row].as_str()).collect()))
}

fn texts(column: &Column) -> Vec<String> {
    fn present<T>(values: &[Option<T>], text: impl Fn(&T) -> String) -> Vec<String> {
        values.iter().map(|value| value.as_ref().map_or(String::new(), &text)).collect()
    }
    match column {
        Column::Real(values) => values.iter().copied().map(number).collect(),
        Column::Integer(values) => present(values, i32::to_string),
        Column::Logical(values) => present(values, |value| logical(*value).to_owned()),
        Column::Text(values) => present(values, String::clone),
    }
}
