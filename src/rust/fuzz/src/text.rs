//! Matrix Market folders and guide tables that are nearly right.
use std::io::{Result, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use flate2::Compression;

use crate::random::Random;

/// One line in so many is wrong.
const ODDS: usize = 60;

/// Folders as 10x, Parse, kallisto, GEO and alevin-fry write them: matrix, features, cells.
const LAYOUTS: [[&str; 3]; 5] = [
    ["matrix.mtx", "features.tsv", "barcodes.tsv"],
    ["DGE.mtx", "all_guides.csv", "cell_metadata.csv"],
    ["cells_x_features.mtx", "cells_x_features.genes.txt", "cells_x_features.barcodes.txt"],
    ["GSM1_sgRNA.mtx", "GSM1_sgRNA_features.tsv", "GSM1_sgRNA_barcodes.tsv"],
    ["quants_mat.mtx", "quants_mat_cols.txt", "quants_mat_rows.txt"],
];

pub fn mtx(random: &mut Random, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let (cells, guides) = (1 + random.below(20), 1 + random.below(6));
    let [matrix, features, barcodes] = *random.one_of(&LAYOUTS);
    let tables = features.ends_with(".csv");
    let by_guide = !tables && random.one_in(2);
    let (rows, columns) = if by_guide { (guides, cells) } else { (cells, guides) };

    let mut entries = vec![];
    for row in 1..=rows {
        for column in 1..=columns {
            if random.one_in(3) {
                entries.push(format!("{row} {column} {}", 1 + random.below(30)));
            }
        }
    }
    if random.one_in(4) {
        entries.reverse();
    }
    let kind = if random.one_in(ODDS) { "pattern" } else { *random.one_of(&["integer", "real", "unsigned-integer"]) };
    let mut lines = vec![format!("%%MatrixMarket matrix coordinate {kind} general"), "% a comment".to_owned()];
    lines.push(format!("{rows} {columns} {}", entries.len()));
    lines.append(&mut entries);
    write(random, folder, matrix, &mut lines)?;

    let types = random.one_in(2);
    let mut lines: Vec<String> = (0..guides)
        .map(|at| match (tables, types) {
            (true, _) => format!("guide {at},\"T, {at}\",ACGT"),
            (false, true) if at % 4 == 1 => format!("gene {at}\tgene\tGene Expression"),
            (false, true) => format!("guide {at}\tg{at}\tCRISPR Guide Capture"),
            (false, false) => format!("guide {at}"),
        })
        .collect();
    if tables {
        lines.insert(0, "guide_id,target,sequence".to_owned());
    }
    write(random, folder, features, &mut lines)?;
    let mut lines: Vec<String> =
        (0..cells).map(|at| if tables { format!("cell {at},lane {}", at % 2) } else { format!("cell {at}") }).collect();
    if tables {
        lines.insert(0, "bc_wells,lane".to_owned());
    }
    write(random, folder, barcodes, &mut lines)
}

/// Tables of counts, wide and long.
pub fn table(random: &mut Random, path: &Path) -> Result<()> {
    let delimiter = *random.one_of(&[",", "\t", ";"]);
    let (cells, guides) = (1 + random.below(20), 1 + random.below(6));
    let barcode =
        |at: usize| (0..10).map(|place| ['A', 'C', 'G', 'T'][(at >> (2 * place)) as usize & 3]).collect::<String>();
    let mut lines = vec![];
    if random.one_in(2) {
        lines.push(["cell", "guide", "umi_count"].join(delimiter));
        for pair in 0..cells * guides {
            let (cell, guide) = (barcode(pair / guides), format!("g{}", pair % guides));
            lines.push([cell, guide, random.below(30).to_string()].join(delimiter));
        }
    } else {
        let names: Vec<String> = (0..guides).map(|guide| format!("g{guide}")).collect();
        lines.push(format!("{delimiter}{}", names.join(delimiter)));
        for cell in 0..cells {
            let counts: Vec<String> = (0..guides).map(|_| random.below(30).to_string()).collect();
            lines.push(format!("{}{delimiter}{}", barcode(cell), counts.join(delimiter)));
        }
    }
    let bytes = spoiled(random, &mut lines);
    std::fs::write(path, bytes)
}

pub fn guide_table(random: &mut Random, path: &Path) -> Result<()> {
    let delimiter = *random.one_of(&[",", "\t"]);
    let mut lines = vec![["guide_id", "target", "type", "sequence"].join(delimiter)];
    for at in 0..random.below(12) {
        let id = if random.one_in(8) { format!("\"g{delimiter}\"\"{at}\"") } else { format!("g{at}") };
        let target = if random.one_in(4) { "" } else { "T" };
        lines.push([&id, target, "targeting", "ACGT"].join(delimiter));
    }
    if random.one_in(8) {
        lines[0].insert(0, '\u{feff}');
    }
    let bytes = spoiled(random, &mut lines);
    std::fs::write(path, bytes)
}

fn write(random: &mut Random, folder: &Path, name: &str, lines: &mut Vec<String>) -> Result<()> {
    if random.one_in(2 * ODDS) {
        return Ok(());
    }
    let bytes = spoiled(random, lines);
    // Both are there, or a name of gzip is not of gzip: the content tells.
    let other = if name.ends_with(".gz") { name.to_owned() } else { format!("{name}.gz") };
    let path = folder.join(if random.one_in(3) { &other } else { name });
    std::fs::write(path, bytes)
}

/// The lines with some that are wrong, gzipped now and then.
fn spoiled(random: &mut Random, lines: &mut Vec<String>) -> Vec<u8> {
    const FIELDS: [&str; 22] = [
        "",
        "0",
        "-1",
        "1",
        "7",
        "1.5",
        "1e3",
        "1e300",
        "NaN",
        "inf",
        "2147483647",
        "2147483648",
        "4294967296",
        "18446744073709551615",
        "99999999999999999999999999",
        "+3",
        "0x1",
        "x",
        "%",
        "\"",
        "\"a\"\"b\"",
        "\u{e9}\0",
    ];
    let mut at = 0;
    while at < lines.len() {
        if random.one_in(ODDS) {
            let line = lines[at].clone();
            let separator = if line.contains('\t') {
                '\t'
            } else if line.contains(',') {
                ','
            } else {
                ' '
            };
            let mut fields: Vec<&str> = line.split(separator).collect();
            match random.below(8) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, line),
                2 => {
                    let with = random.below(lines.len());
                    lines.swap(at, with);
                }
                3 => lines[at] = format!(" {line}\t "),
                change => {
                    let place = random.below(fields.len());
                    match change {
                        4 => {
                            fields.remove(place);
                        }
                        5 => fields.insert(place, *random.one_of(&FIELDS)),
                        _ => fields[place] = *random.one_of(&FIELDS),
                    }
                    lines[at] = fields.join(&separator.to_string());
                }
            }
        }
        at += 1;
    }
    let end = if random.one_in(6) { "\r\n" } else { "\n" };
    let mut text = lines.join(end).into_bytes();
    if !random.one_in(8) {
        text.extend_from_slice(end.as_bytes());
    }
    if random.one_in(ODDS) {
        text.extend_from_slice(&[0xff, 0xfe, b'\n']);
    }
    if !random.one_in(4) {
        return text;
    }
    // Of several members, as bgzip writes.
    let middle = random.below(text.len());
    let mut bytes = vec![];
    for part in [&text[..middle], &text[middle..]] {
        let mut gzip = GzEncoder::new(vec![], Compression::fast());
        if gzip.write_all(part).is_ok() {
            bytes.extend(gzip.finish().unwrap_or_default());
        }
    }
    bytes
}
