//! The readers on the files of tests/testthat/fixtures, which a source tarball may lack, and on folders made here. The texts of
//! errors are tested in tests/testthat.
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{write::GzEncoder, Compression};
use kaichi_core::io::{self, inspect::inspect, GuideFile, Orientation, ReadOptions};
use kaichi_core::run::on_threads;
use kaichi_core::{Error, Result};

mod folder;
use folder::Folder;

const CELLS: usize = 12;
const GUIDES: usize = 5;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/testthat/fixtures");
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap()
}

fn fixture(wanted: &str) -> Option<PathBuf> {
    fixtures().into_iter().find(|path| name(path) == wanted)
}

fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    on_threads(2, || io::read(path, options))
}

/// UMIs as tools/fixtures/write_h5ad.py and write_formats.py state them.
fn truth(cell: usize, guide: usize) -> usize {
    if (cell + 2 * guide) % 3 == 0 {
        (7 * cell + 3 * guide) % 11
    } else {
        0
    }
}

/// Of these cells and guides, in rows.
fn expected(cells: std::ops::Range<usize>, guides: usize) -> (Vec<i32>, Vec<i32>, Vec<f64>) {
    let (mut indptr, mut of, mut counts) = (vec![0], vec![], vec![]);
    for cell in cells {
        for guide in (0..guides).filter(|&guide| truth(cell, guide) > 0) {
            of.push(guide as i32);
            counts.push(truth(cell, guide) as f64);
        }
        indptr.push(of.len() as i32);
    }
    (indptr, of, counts)
}

fn assert_truth(path: &Path, file: GuideFile, guides: usize) {
    assert_eq!((file.indptr, file.guides, file.counts), expected(0..CELLS, guides), "{}", path.display());
    let names: Vec<String> = (1..=CELLS).map(|cell| format!("cell_{cell}")).collect();
    assert_eq!(file.cell_names, names, "{}", path.display());
    assert_eq!(file.guide_names.len(), guides, "{}", path.display());
}

#[test]
fn every_way_to_write_the_counts_gives_the_same() {
    let plain = ReadOptions::default();
    for path in fixtures() {
        let of = name(&path);
        let options = match of {
            "tenx-custom.h5" => ReadOptions { feature_type: Some("Custom"), ..plain },
            "tenx.h5" | "guides.h5mu" | "filter-zstd.h5ad" => plain,
            _ if of.starts_with("mixed-") => ReadOptions { batch: Some("lane"), ..plain },
            _ if of.starts_with("anndata-") || of.starts_with("parts-") => plain,
            _ => continue,
        };
        let file = read(&path, &options).unwrap_or_else(|error| panic!("{of}: {error}"));
        if options.batch.is_some() {
            assert_eq!(file.batches(), Some(vec!["a", "b"]), "{of}");
            assert_eq!(file.batch.as_ref().map(|batch| batch[6].as_str()), Some("b"), "{of}");
        }
        assert_truth(&path, file, GUIDES);
        if of.starts_with("anndata-") {
            let doubled = read(&path, &ReadOptions { layer: Some("doubled"), ..plain }).unwrap();
            assert!(doubled.counts.iter().zip(expected(0..CELLS, GUIDES).2).all(|(&twice, once)| twice == 2.0 * once));
        }
    }
}

#[test]
fn what_is_chosen_of_a_file_is_taken() {
    let plain = ReadOptions::default();
    let chosen = [
        ("guides-several.h5mu", ReadOptions { modality: Some("crispr"), ..plain }, 2),
        ("tenx-several.h5", ReadOptions { feature_type: Some("CRISPR Guide Capture"), ..plain }, 3),
    ];
    for (file, options, guides) in chosen {
        let Some(path) = fixture(file) else { return };
        assert!(read(&path, &plain).is_err(), "{file}");
        assert_truth(&path, read(&path, &options).unwrap(), guides);
    }
}

#[test]
fn molecules_are_counted_in_the_cells_that_were_called() {
    let (Some(called), Some(all)) = (fixture("molecules.h5"), fixture("molecules-all.h5")) else { return };
    let file = read(&called, &ReadOptions::default()).unwrap();
    // Without the first barcode of each of the two GEM groups.
    assert_eq!(file.cell_names.len(), CELLS - 2);
    assert_eq!((&file.cell_names[0][..], &file.cell_names[9][..]), ("AACC-1", "AACX-2"));
    let counts = [expected(1..6, GUIDES).2, expected(7..12, GUIDES).2].concat();
    assert_eq!(file.counts, counts);
    let file = read(&all, &ReadOptions::default()).unwrap();
    assert_eq!(file.counts, expected(0..CELLS, GUIDES).2);
    assert!(file.indptr.windows(2).all(|row| row[0] < row[1]), "cells are barcodes with a guide");
}

#[test]
fn what_is_wrong_is_an_error_of_the_file() {
    let mut n = 0;
    for path in fixtures() {
        let of = name(&path);
        let bad = of.starts_with("bad-") || of.contains("-bad") || of.contains("-none") || of == "tenx-version-2.h5";
        // These are fine but for a column or without the layer.
        if !bad || ["bad-batch.h5ad", "bad-layer-counts.h5ad"].contains(&of) || of.ends_with("tgz") {
            continue;
        }
        n += 1;
        match read(&path, &ReadOptions::default()) {
            Err(Error::Internal(text)) => panic!("{of}: {text}"),
            Err(error) => assert!(error.to_string().contains(of), "{of} is not named: {error}"),
            Ok(_) => panic!("{of} was read"),
        }
        if let Err(Error::Internal(text)) = inspect(&path) {
            panic!("{of}: {text}");
        }
    }
    assert!(n > 35 || fixtures().is_empty(), "{n} files");
}

#[test]
fn options_that_mean_nothing_are_refused() {
    let plain = ReadOptions::default();
    let options = [
        ReadOptions { layer: Some("counts"), ..plain },
        ReadOptions { batch: Some("lane"), ..plain },
        ReadOptions { modality: Some("guide"), ..plain },
        ReadOptions { orientation: Some(Orientation::CellsByGuides), ..plain },
    ];
    for (file, refused) in
        [("tenx.h5", &options[..]), ("molecules.h5", &options[..]), ("mixed-csr.h5ad", &options[2..])]
    {
        let Some(path) = fixture(file) else { return };
        for options in refused {
            assert!(matches!(read(&path, options), Err(Error::Argument(_))), "{file}: {options:?}");
        }
    }
}

#[test]
fn a_file_is_told_by_what_it_holds() {
    let kinds = [
        ("guides.h5mu", "MuData"),
        ("mixed-csr.h5ad", "AnnData"),
        ("tenx.h5", "counts of 10x Genomics"),
        ("molecules.h5", "molecule_info.h5"),
        ("tenx-version-2.h5", "HDF5 of another kind"),
    ];
    for (file, kind) in kinds {
        let Some(path) = fixture(file) else { return };
        let facts = on_threads(2, || inspect(&path)).unwrap();
        assert!(facts[0].2.contains(kind), "{file}: {facts:?}");
        assert!(facts.len() > 2, "{file}");
    }
}

// ---- Matrix Market ----

fn write(folder: &Folder, name: &str, gzip: bool, text: &str) {
    if gzip {
        let file = fs::File::create(folder.file(&format!("{name}.gz"))).unwrap();
        let mut file = GzEncoder::new(file, Compression::default());
        file.write_all(text.as_bytes()).unwrap();
        file.finish().unwrap();
    } else {
        fs::write(folder.file(name), text).unwrap();
    }
}

fn lines<T: std::fmt::Display>(values: impl Iterator<Item = T>) -> String {
    values.fold(String::new(), |text, value| text + &format!("{value}\n"))
}

/// Rows are the guides, after so many genes with a count in each cell, or the cells.
fn mtx(genes: usize, cells: usize, by_cell: bool, kind: &str) -> String {
    let mut rows = vec![];
    for cell in 0..cells {
        rows.extend((0..genes).map(|gene| (gene + 1, cell + 1, 1)));
        rows.extend((0..GUIDES).map(|g| (genes + g + 1, cell + 1, truth(cell, g))).filter(|row| row.2 > 0));
    }
    let features = genes + GUIDES;
    let (n, m) = if by_cell { (cells, features) } else { (features, cells) };
    let entries = rows.iter().map(|&(f, c, y)| if by_cell { format!("{c} {f} {y}") } else { format!("{f} {c} {y}") });
    format!("%%MatrixMarket matrix coordinate {kind} general\n% a comment\n{n} {m} {}\n{}", rows.len(), lines(entries))
}

fn barcodes(cells: usize) -> String {
    lines((1..=cells).map(|cell| format!("cell_{cell}")))
}

fn guides() -> String {
    lines((1..=GUIDES).map(|guide| format!("guide_{guide}")))
}

#[test]
fn folders_of_every_pipeline_give_the_same_counts() {
    for gzip in [true, false] {
        let tenx = Folder::new("tenx");
        write(&tenx, "matrix.mtx", gzip, &mtx(1, CELLS, false, "integer"));
        write(&tenx, "barcodes.tsv", gzip, &barcodes(CELLS));
        let features = (1..=GUIDES).map(|guide| format!("guide_{guide}\tG\tCRISPR Guide Capture"));
        write(&tenx, "features.tsv", gzip, &format!("gene\tGENE\tGene Expression\n{}", lines(features)));
        let file = read(&tenx.0, &ReadOptions::default()).unwrap();
        assert!(file.choices.iter().any(|choice| choice.contains("5 features of the type")), "{:?}", file.choices);
        assert_truth(&tenx.0, file, GUIDES);
        let facts = inspect(&tenx.0).unwrap();
        assert!(facts.iter().any(|(_, _, text)| text.contains("12")), "{facts:?}");
    }
    let parse = Folder::new("parse");
    write(&parse, "count_matrix.mtx", false, &mtx(0, CELLS, true, "real"));
    write(
        &parse,
        "all_guides.csv",
        false,
        &format!("gene_id,gene_name,genome\n{}", lines((1..=5).map(|g| format!(",guide_{g},hg38")))),
    );
    let cells = (1..=CELLS).map(|cell| format!("cell_{cell},\"s,{}\"", cell % 2));
    write(&parse, "cell_metadata.csv", false, &format!("bc_wells,sample\n{}", lines(cells)));
    let file = read(&parse.0, &ReadOptions { batch: Some("sample"), ..ReadOptions::default() }).unwrap();
    assert_eq!(file.batches(), Some(vec!["s,0", "s,1"]));
    assert_truth(&parse.0, file, GUIDES);
    let kite = Folder::new("kite");
    write(&kite, "cells_x_features.mtx", false, &mtx(0, CELLS, true, "integer"));
    write(&kite, "cells_x_features.barcodes.txt", false, &barcodes(CELLS));
    write(&kite, "cells_x_features.genes.txt", false, &guides());
    assert_truth(&kite.0, read(&kite.file("cells_x_features.mtx"), &ReadOptions::default()).unwrap(), GUIDES);
}

#[test]
fn a_square_matrix_is_read_as_it_is_said() {
    let folder = Folder::new("square");
    write(&folder, "matrix.mtx", false, &mtx(0, GUIDES, false, "integer"));
    write(&folder, "barcodes.tsv", false, &barcodes(GUIDES));
    write(&folder, "features.tsv", false, &guides());
    assert!(matches!(read(&folder.0, &ReadOptions::default()), Err(Error::Format(_))));
    let as_said = |orientation| read(&folder.0, &ReadOptions { orientation, ..ReadOptions::default() }).unwrap();
    let file = as_said(Some(Orientation::GuidesByCells));
    assert_eq!((file.indptr, file.guides, file.counts), expected(0..GUIDES, GUIDES));
    let file = as_said(Some(Orientation::CellsByGuides));
    let at = |cell: usize, guide: usize| {
        let row = file.indptr[cell] as usize..file.indptr[cell + 1] as usize;
        row.into_iter().find(|&at| file.guides[at] == guide as i32).map_or(0, |at| file.counts[at] as usize)
    };
    assert!((0..GUIDES).all(|cell| (0..GUIDES).all(|guide| at(cell, guide) == truth(guide, cell))));
}

#[test]
fn wrong_lines_are_named() {
    let good = mtx(0, CELLS, false, "integer");
    let with = |n: usize, line: &str| {
        let mut lines: Vec<&str> = good.lines().collect();
        lines[n - 1] = line;
        lines.join("\n")
    };
    let cases = [
        (with(1, "%%MatrixMarket matrix array integer general"), "line 3"),
        (with(1, "%%MatrixMarket matrix coordinate complex general"), "complex"),
        (with(3, "5 12"), "line 3"),
        (with(5, "6 1 3"), "line 5"),
        (with(5, "1 0 3"), "line 5"),
        (with(5, "1 1"), "line 5"),
        (with(5, "1 1 -3"), "-3"),
        (with(5, "1 1 0.5"), "0.5"),
        (with(5, "1 1 3e9"), "line 5"),
        (lines(good.lines().take(6)), "matrix.mtx"),
        (format!("{good}1 1 1\n"), "matrix.mtx"),
    ];
    for (text, said) in cases {
        let folder = Folder::new("wrong");
        write(&folder, "matrix.mtx", false, &text);
        write(&folder, "barcodes.tsv", false, &barcodes(CELLS));
        write(&folder, "features.tsv", false, &guides());
        match read(&folder.0, &ReadOptions::default()) {
            Err(error @ (Error::Format(_) | Error::Counts(_))) => {
                assert!(error.to_string().contains(said), "{error} says nothing of {said}");
            }
            other => panic!("{said}: {other:?}"),
        }
    }
}
