//! The files of Cell Ranger's crispr_analysis, as write_calls() of the R package writes them.
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use kaichi_core::{Error, Result};

use crate::numbers::number;
use crate::output::Target;
use crate::report::Unfinished;
use crate::screen::{Decision, Screen};
use crate::tables::Writer;

const FILES: [&str; 5] = [
    "protospacer_calls_per_cell.csv",
    "protospacer_calls_summary.csv",
    "cells_per_protospacer.json",
    "protospacer_umi_thresholds.csv",
    "protospacer_umi_thresholds.json",
];

/// That the folder can take the files.
pub fn check(path: &Path, overwrite: bool) -> Result<()> {
    if path.is_dir() {
        for name in FILES {
            Target::new(Some(&path.join(name)), "output", overwrite, &[])?;
        }
        return Ok(());
    }
    if path.exists() {
        return Err(Error::Argument(format!(
            "--output is the file \"{}\"; the files of Cell Ranger go into a folder.",
            path.display()
        )));
    }
    Target::new(Some(path), "output", overwrite, &[]).map(drop)
}

pub fn write(path: &Path, screen: &Screen, decision: &Decision) -> Result<()> {
    let files = files(screen, decision)?;
    let cannot = |error: std::io::Error| Error::File(format!("\"{}\" cannot be written: {error}.", path.display()));
    let unfinished = Unfinished::new();
    if path.is_dir() {
        // Thresholds of other calls must not stay beside these.
        for name in FILES.iter().filter(|name| !files.iter().any(|(ours, _)| ours == *name)) {
            let _ = fs::remove_file(path.join(name));
        }
        return files.iter().try_for_each(|(name, text)| write_text(&path.join(name), text));
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let folder = path.with_file_name(name);
    fs::create_dir(&folder).map_err(cannot)?;
    let written = files.iter().try_for_each(|(name, text)| write_text(&folder.join(name), text));
    let moved = written.and_then(|()| unfinished.check()).and_then(|()| fs::rename(&folder, path).map_err(cannot));
    if moved.is_err() {
        let _ = fs::remove_dir_all(&folder);
    }
    moved
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    let writer: Writer = Box::new(|out| out.write_all(text.as_bytes()));
    Target::File(path.to_owned()).write(&writer)
}

/// Everything follows Cell Ranger's order: guide after guide, and cells as they first occur in that.
fn files(screen: &Screen, decision: &Decision) -> Result<Vec<(&'static str, String)>> {
    let counts = &screen.counts;
    let (guides, cells) = (&counts.guide_names, &counts.cell_names);
    let calls = &decision.calls;
    let mut of_guide: Vec<Vec<usize>> = vec![vec![]; guides.len()];
    for cell in 0..cells.len() {
        for &at in &calls.pairs[calls.indptr[cell]..calls.indptr[cell + 1]] {
            of_guide[counts.guides[at] as usize].push(cell);
        }
    }
    if let Some(guide) = (0..guides.len()).find(|&guide| guides[guide].contains('|') && !of_guide[guide].is_empty()) {
        return Err(Error::Names(format!(
            "The guide \"{}\" has a \"|\" in its name, which parts guides in the files of Cell Ranger. Rename it, or choose another \
             format.",
            guides[guide]
        )));
    }
    let mut seen = HashSet::new();
    let order: Vec<usize> = of_guide.iter().flatten().copied().filter(|&cell| seen.insert(cell)).collect();

    let called = |cell: usize| &calls.pairs[calls.indptr[cell]..calls.indptr[cell + 1]];
    let joined = |cell: usize, text: &dyn Fn(usize) -> String| {
        called(cell).iter().map(|&at| text(at)).collect::<Vec<_>>().join("|")
    };
    let guides_of = |cell| joined(cell, &|at| guides[counts.guides[at] as usize].clone());
    let mut per_cell = "cell_barcode,num_features,feature_call,num_umis\n".to_owned();
    for &cell in &order {
        let umis = joined(cell, &|at| number(counts.counts[at]));
        per_cell += &format!("{},{},{},{umis}\n", field(&cells[cell]), called(cell).len(), field(&guides_of(cell)));
    }

    let n = cells.len();
    let mut summary = "feature_call,num_cells,pct_cells,median_umis,stddev_umis\n".to_owned();
    let mut row = |name: &str, cells: usize, median: &str, deviation: &str| {
        let share = python_float(cells as f64 / n as f64);
        summary += &format!("{},{cells},{share},{median},{deviation}\n", field(name));
    };
    row("No guide molecules", counts.indptr.windows(2).filter(|pair| pair[0] == pair[1]).count(), "None", "None");
    row("No confident call", n - order.len(), "None", "None");
    row("1 protospacer assigned", order.iter().filter(|&&cell| called(cell).len() == 1).count(), "None", "None");
    row(
        "More than 1 protospacer assigned",
        order.iter().filter(|&&cell| called(cell).len() > 1).count(),
        "None",
        "None",
    );
    let mut kinds: Vec<(String, Vec<f64>)> = vec![];
    let mut place: HashMap<String, usize> = HashMap::new();
    for &cell in &order {
        let name = guides_of(cell);
        let at = *place.entry(name.clone()).or_insert_with(|| {
            kinds.push((name, vec![]));
            kinds.len() - 1
        });
        kinds[at].1.push(called(cell).iter().map(|&at| counts.counts[at]).sum());
    }
    for (name, umis) in &kinds {
        row(name, umis.len(), &median(umis), &deviation(umis));
    }

    let lists: Vec<String> = (0..guides.len())
        .map(|guide| {
            let cells: Vec<String> =
                of_guide[guide].iter().map(|&cell| format!("    {}", json(&cells[cell]))).collect();
            let list = if cells.is_empty() { "[]".to_owned() } else { format!("[\n{}\n  ]", cells.join(",\n")) };
            format!("  {}: {list}", json(&guides[guide]))
        })
        .collect();
    let thresholds = thresholds(screen, decision);
    let mut files =
        vec![(FILES[0], per_cell), (FILES[1], summary), (FILES[2], format!("{{\n{}\n}}\n", lists.join(",\n")))];
    if !thresholds.is_empty() {
        let rows: Vec<String> =
            thresholds.iter().map(|&(guide, umis)| format!("{},{umis}\n", field(&guides[guide]))).collect();
        files.push((FILES[3], format!("Protospacer,UMI threshold\n{}", rows.concat())));
        let rows: Vec<String> =
            thresholds.iter().map(|&(guide, umis)| format!("    {}: {umis}", json(&guides[guide]))).collect();
        files.push((FILES[4], format!("{{\n{}\n}}\n", rows.join(",\n"))));
    }
    Ok(files)
}

/// The count from which on all cells have the guide called and none below it, of the guides that have one.
fn thresholds(screen: &Screen, decision: &Decision) -> Vec<(usize, f64)> {
    let counts = &screen.counts;
    let n = counts.guide_names.len();
    let (mut least, mut most_left) = (vec![f64::INFINITY; n], vec![0.0f64; n]);
    let mut called = decision.calls.pairs.iter().copied().peekable();
    for (at, (&guide, &umis)) in counts.guides.iter().zip(&counts.counts).enumerate() {
        let guide = guide as usize;
        match called.next_if_eq(&at) {
            Some(_) => least[guide] = least[guide].min(umis),
            None => most_left[guide] = most_left[guide].max(umis),
        }
    }
    (0..n)
        .filter(|&guide| least[guide].is_finite() && most_left[guide] < least[guide])
        .map(|guide| (guide, least[guide]))
        .collect()
}

fn field(text: &str) -> String {
    match text.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn json(text: &str) -> String {
    let mut out = "\"".to_owned();
    for letter in text.chars() {
        match letter {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            control if control < ' ' => out += &format!("\\u{:04x}", control as u32),
            other => out.push(other),
        }
    }
    out + "\""
}

fn python_float(x: f64) -> String {
    let text = number(x);
    match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        true => text + ".0",
        false => text,
    }
}

/// One of the values or, of an even number of them, a float, as Python's.
fn median(umis: &[f64]) -> String {
    let mut sorted = umis.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => format!("{:.0}", sorted[middle]),
        _ => python_float((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// That of the population; 0 for a single value, as Cell Ranger says it.
fn deviation(umis: &[f64]) -> String {
    if umis.len() < 2 {
        return "0".to_owned();
    }
    let mean = exact_mean(umis);
    let squares: Vec<f64> = umis.iter().map(|x| (x - mean) * (x - mean)).collect();
    python_float(exact_mean(&squares).sqrt())
}

/// The mean with twice the digits on the way: R sums in the long doubles of C.
fn exact_mean(values: &[f64]) -> f64 {
    let (mut sum, mut rest) = (0.0f64, 0.0f64);
    for &x in values {
        let next = sum + x;
        rest += if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    let n = values.len() as f64;
    let mean = sum / n;
    mean + (mean.mul_add(-n, sum) + rest) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        assert_eq!(
            [median(&[3.0]), median(&[5.0, 1.0, 2.0]), median(&[1.0, 2.0]), median(&[2.0, 2.0])],
            ["3", "2", "1.5", "2.0"]
        );
        assert_eq!([deviation(&[3.0]), deviation(&[1.0, 3.0]), deviation(&[2.0, 2.0])], ["0", "1.0", "0.0"]);
        assert_eq!(json("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
        // (1 + 2 + 2) / 3, and the deviation of it.
        assert_eq!(deviation(&[1.0, 2.0, 2.0]), "0.4714045207910317");
    }
}
