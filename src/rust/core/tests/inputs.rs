//! Files as pipelines, archives and people write them. Those of shared/data/inputs are one screen of 8 guides x 300 cells in many forms;
//! where they are not, small ones made here tell the same.
use std::fs;
use std::path::{Path, PathBuf};

use kaichi_core::io::inspect::inspect;
use kaichi_core::io::samples::{self, Found, Input};
use kaichi_core::io::{read as read_file, GuideFile, Orientation, ReadOptions};
use kaichi_core::run::on_threads;
use kaichi_core::{Error, Result};

mod folder;
use folder::Folder;

fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    on_threads(2, || read_file(path, options))
}

const NONE: ReadOptions = ReadOptions {
    layer: None,
    batch: None,
    modality: None,
    feature_type: None,
    orientation: None,
    features: None,
    barcodes: None,
    guides: None,
    union: false,
};

fn inputs() -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let named = std::env::var_os("KAICHI_TEST_DATA").map(PathBuf::from);
    let found = above.map(|folder| folder.join("shared/data")).chain(named).map(|data| data.join("inputs"));
    found.into_iter().find(|inputs| inputs.is_dir())
}

/// Barcodes, without a -1 at the end, guides, and counts by row.
type Content = (Vec<String>, Vec<String>, Vec<Vec<(String, f64)>>);

fn content(file: GuideFile) -> Content {
    let guides = &file.guide_names;
    let row = |pair: &[i32]| {
        let range = pair[0] as usize..pair[1] as usize;
        range.map(|at| (guides[file.guides[at] as usize].clone(), file.counts[at])).collect()
    };
    let rows = file.indptr.windows(2).map(row).collect();
    let cells = file.cell_names.iter().map(|cell| cell.trim_end_matches("-1").to_owned()).collect();
    (cells, file.guide_names.clone(), rows)
}

#[test]
fn every_form_of_the_screen_gives_the_same_counts() {
    let Some(inputs) = inputs() else { return };
    let reference = content(read(&inputs.join("reference_10x"), &NONE).unwrap());
    assert_eq!((reference.0.len(), reference.1.len()), (300, 8));
    let forms = [
        "mtx_scipy_unsigned",
        "alevin_fry",
        "alevin_fry/quants_mat.mtx",
        "layouts/geo3_sgRNA",
        "layouts/geo6_infix",
        "layouts/rquotes",
        "layouts/kb_kite/counts_filtered",
        "layouts/kb_kite/counts_unfiltered",
        "tables/cells_by_guides.csv",
        "tables/guides_by_cells.csv.gz",
        "plain_10x.h5",
    ];
    for form in forms {
        let path = inputs.join(form);
        let got = content(read(&path, &NONE).unwrap_or_else(|error| panic!("{form}: {error}")));
        assert!(got == reference, "{form}: {:?} {:?}", got.1, &got.0[..3]);
        inspect(&path).unwrap_or_else(|error| panic!("{form}: {error}"));
    }
    // Parse has barcodes of its own.
    let parse = content(read(&inputs.join("layouts/parse/guide_DGE_filtered"), &NONE).unwrap());
    assert_eq!((&parse.1, parse.2), (&reference.1, reference.2.clone()));
    let raw = read(&inputs.join("counts_in_raw.h5ad"), &ReadOptions { layer: Some("raw"), ..NONE }).unwrap();
    assert_eq!(content(raw).2, reference.2);
    let error = read(&inputs.join("counts_in_raw.h5ad"), &NONE).err().unwrap().to_string();
    assert!(error.contains("try `layer = \"raw\"`"), "{error}");
    // The library adds the sequence to its names.
    let file = read(&inputs.join("citeseqcount_unmapped"), &NONE).unwrap();
    assert!(
        file.choices.iter().any(|choice| choice == "Leaving out \"unmapped\": it is no guide."),
        "{:?}",
        file.choices
    );
    let file = content(file);
    assert_eq!(file.1.len(), 8);
    assert!(file.1.iter().zip(&reference.1).all(|(with, guide)| with.starts_with(guide)));
    let unnamed = |rows: &[Vec<(String, f64)>]| -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.iter().map(|count| count.1).collect()).collect()
    };
    assert_eq!(unnamed(&file.2), unnamed(&reference.2));
}

#[test]
fn what_is_not_read_says_what_it_is() {
    let Some(inputs) = inputs() else { return };
    let error = |name: &str| read(&inputs.join(name), &NONE).err().unwrap_or_else(|| panic!("{name} was read"));
    for (name, words) in [
        ("guides.loom", &["is a loom file", "scanpy.read_loom"][..]),
        ("guides.zarr", &["is a zarr store", "anndata.read_zarr"]),
        ("rna_ensembl.h5ad", &["names genes, not guides: 50 of 50 features have Ensembl ids"]),
    ] {
        let text = error(name).to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
    }
    assert_eq!(read(&inputs.join("duplicate_genes.h5ad"), &NONE).unwrap().guide_names.len(), 8);
}

#[test]
fn guide_tables_of_others_have_their_targets() {
    let Some(inputs) = inputs() else { return };
    for name in ["feature_reference.csv", "igvf_guide_metadata.tsv"] {
        let (table, choices) = kaichi_core::io::guide_table::read(&inputs.join("guide_tables").join(name)).unwrap();
        let column = |name: &str| &table.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(column("guide_id")[0].as_deref(), Some("sgKLF1_1"), "{name}");
        assert_eq!(column("target")[0].as_deref(), Some("KLF1"), "{name}");
        assert!(choices[0].contains("as target"), "{choices:?}");
    }
}

// ---- files made here ----

const BARCODES: [&str; 4] = ["AAACCTGAGAAACC", "AAACCTGAGAAACG", "AAACCTGAGAAACT", "AAACCTGAGAAAGG"];
const GUIDES: [&str; 3] = ["sgA_1", "sgB_1", "sgNT"];
const COUNTS: [[u32; 3]; 4] = [[5, 0, 1], [0, 7, 0], [0, 0, 0], [2, 0, 31]];

/// Files of these names and texts, in a folder of their own.
fn files(name: &str, texts: &[(&str, &str)]) -> Folder {
    let folder = Folder::new(name);
    texts.iter().for_each(|(name, text)| fs::write(folder.file(name), text).unwrap());
    folder
}

fn check(name: &str, file: Result<GuideFile>) {
    let file = file.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        (&file.cell_names[..], &file.guide_names[..]),
        (&BARCODES.map(String::from)[..], &GUIDES.map(String::from)[..]),
        "{name}"
    );
    let mut counts = [[0; 3]; 4];
    for cell in 0..4 {
        for at in file.indptr[cell] as usize..file.indptr[cell + 1] as usize {
            counts[cell][file.guides[at] as usize] = file.counts[at] as u32;
        }
    }
    assert_eq!(counts, COUNTS, "{name}");
}

fn lines(names: &[&str]) -> String {
    names.iter().fold(String::new(), |text, name| text + name + "\n")
}

fn matrix(kind: &str) -> String {
    match kind {
        "array" => {
            let values = COUNTS.iter().flatten().fold(String::new(), |text, count| text + &format!("{count}\n"));
            format!("%%MatrixMarket matrix array integer general\n3 4\n{values}")
        }
        _ => format!("%%MatrixMarket matrix coordinate {kind} general\n%\n3 4 5\n1 1 5\n3 1 1\n2 2 7\n1 4 2\n3 4 31\n"),
    }
}

#[test]
fn names_are_found_however_they_lie_beside_the_matrix() {
    let (barcodes, guides) = (lines(&BARCODES), lines(&GUIDES));
    for kind in ["integer", "unsigned-integer", "real", "array"] {
        let folder =
            files("kinds", &[("matrix.mtx", &matrix(kind)), ("barcodes.tsv", &barcodes), ("genes.tsv", &guides)]);
        check(kind, read(&folder.0, &NONE));
    }
    for (matrix_name, barcode_name, guide_name) in [
        ("GSM1_sgRNA.mtx", "GSM1_sgRNA_barcodes.tsv", "GSM1_sgRNA_features.tsv"),
        ("GSE_matrix_guide.mtx", "GSE_barcodes_guide.tsv", "GSE_features_guide.tsv"),
        ("screen.mtx", "screen.cells.txt", "screen.gRNAs.txt"),
        ("screen_matrix.mtx.txt", "screen_cellnames.csv", "screen_genenames.csv"),
        ("quants_mat.mtx", "quants_mat_cols.txt", "quants_mat_rows.txt"),
        ("matrix.mtx", "barcodes.tsv", "guides.tsv"),
    ] {
        let texts = [(matrix_name, &*matrix("integer")), (barcode_name, &barcodes), (guide_name, &guides)];
        // The genes of the same cells, which must not be taken.
        let genes = [("RNA_matrix.mtx", "x"), ("RNA_features.tsv", "a\nb\nc\n"), ("RNA_barcodes.tsv", "a\n")];
        let folder = files("beside", &texts);
        check(matrix_name, read(&folder.file(matrix_name), &NONE));
        genes.iter().for_each(|(name, text)| fs::write(folder.file(name), text).unwrap());
        check(matrix_name, read(&folder.file(matrix_name), &NONE));
    }
    // Nothing tells of these, so that they are given.
    let folder = files("given", &[("m.mtx", &matrix("integer")), ("x.tsv", &barcodes), ("y.tsv", &guides)]);
    let error = read(&folder.0, &NONE).err().unwrap().to_string();
    assert!(error.contains("Give that file as `features`"), "{error}");
    let (x, y) = (folder.file("x.tsv"), folder.file("y.tsv"));
    let given = ReadOptions { barcodes: x.to_str(), features: y.to_str(), ..NONE };
    check("given", read(&folder.0, &given));
    // They are of use for a Matrix Market file only.
    let table = files("no_use", &[("t.csv", "cell,g\na,1\n")]);
    assert!(matches!(read(&table.file("t.csv"), &given), Err(Error::Argument(_))));
}

#[test]
fn barcodes_of_several_samples_get_the_prefixes_of_kallisto() {
    let prefixes = "SAMPLE1\nSAMPLE1\nSAMPLE2\nSAMPLE2\n";
    let folder = files(
        "prefixes",
        &[
            ("cells_x_features.mtx", "%%MatrixMarket matrix coordinate real general\n4 3 1\n1 1 5\n"),
            ("cells_x_features.barcodes.txt", &lines(&[BARCODES[0], BARCODES[1], BARCODES[0], BARCODES[1]])),
            ("cells_x_features.barcodes.prefix.txt", prefixes),
            ("cells_x_features.genes.txt", &lines(&GUIDES)),
        ],
    );
    let file = read(&folder.0, &NONE).unwrap();
    assert_eq!(file.cell_names[2], "SAMPLE2AAACCTGAGAAACC");
}

#[test]
fn tables_are_read_either_way_round_and_long() {
    let wide = |separator: &str, by_cell: bool, corner: &str| {
        let (rows, columns) = if by_cell { (&BARCODES[..], &GUIDES[..]) } else { (&GUIDES[..], &BARCODES[..]) };
        let count = |row: usize, column: usize| if by_cell { COUNTS[row][column] } else { COUNTS[column][row] };
        let mut text = format!("{corner}{separator}{}\n", columns.join(separator));
        for (r, row) in rows.iter().enumerate() {
            let counts: Vec<String> = (0..columns.len()).map(|c| count(r, c).to_string()).collect();
            text += &format!("{row}{separator}{}\n", counts.join(separator));
        }
        text
    };
    let mut long = "cell_barcode,guide_id,umi_count,reads\n".to_owned();
    for (cell, barcode) in BARCODES.iter().enumerate() {
        (0..3).for_each(|g| long += &format!("{barcode},{},{},9\n", GUIDES[g], COUNTS[cell][g]));
    }
    let by_cell = wide(",", true, "");
    let without_corner = by_cell.strip_prefix(',').unwrap();
    let texts = [
        ("by_cell.csv", by_cell.clone()),
        ("by_guide.csv", wide(",", false, "")),
        ("by_guide.tsv", wide("\t", false, "gene")),
        ("semicolons.csv", wide(";", true, "cell")),
        ("r.txt", without_corner.to_owned()),
        ("bd_RSEC_MolsPerCell.csv", format!("##a comment\n## another\n{}", wide(",", true, "Cell_Index"))),
        ("floats.csv", by_cell.replace(",7,", ",7.0,").replace(",0\n", ",\n")),
        ("marked.csv", format!("\u{feff}{by_cell}\n")),
        ("with_numbers.csv", {
            let mut rows = by_cell.lines();
            let header = format!(",barcode{}\n", rows.next().unwrap());
            rows.enumerate().fold(header, |text, (row, line)| text + &format!("{row},{line}\n"))
        }),
        ("ends.csv", by_cell.replace('\n', ",\n")),
        ("long.csv", long.clone()),
        (
            "long_Expression_Data.st",
            long.replace(',', "\t")
                .replace("cell_barcode", "Cell_Index")
                .replace("guide_id", "Bioproduct")
                .replace("umi_count", "RSEC_Adjusted_Molecules"),
        ),
        (
            "headless.tsv",
            long.lines()
                .skip(1)
                .fold(String::new(), |text, line| text + line.trim_end_matches(",9") + "\n")
                .replace(',', "\t"),
        ),
    ];
    for (name, text) in &texts {
        let folder = files("table", &[(name, text)]);
        check(name, read(&folder.file(name), &NONE));
        assert!(inspect(&folder.file(name)).unwrap()[0].2.contains("table"), "{name}");
    }
}

#[test]
fn a_table_that_could_be_either_way_is_asked_for() {
    let folder = files("either", &[("t.csv", ",a,b,c\nx,1,0,3\ny,0,2,0\n")]);
    let path = folder.file("t.csv");
    let error = read(&path, &NONE).err().unwrap().to_string();
    assert!(error.contains("`orientation = \"guides_by_cells\"`"), "{error}");
    let file = read(&path, &ReadOptions { orientation: Some(Orientation::GuidesByCells), ..NONE }).unwrap();
    assert_eq!((&file.guide_names[..], file.indptr), (&["x", "y"].map(String::from)[..], vec![0, 1, 2, 3]));
    let table = ["a", "b", "c"].map(String::from);
    let file = read(&path, &ReadOptions { guides: Some(&table), ..NONE }).unwrap();
    assert_eq!((&file.guide_names[..], file.indptr), (&table[..], vec![0, 2, 3]));
}

#[test]
fn tables_that_hold_no_counts_say_why() {
    let cases = [
        (",AAACCTGAGAAACC,AAACCTGAGAAACG\ng,1,x\n", "line 2 has the count \"x\" in the column \"AAACCTGAGAAACG\""),
        (",AAACCTGAGAAACC,AAACCTGAGAAACG\ng,1,1.5\n", "which is not a whole number"),
        (",AAACCTGAGAAACC,AAACCTGAGAAACG\ng,1,-1\n", "which is negative"),
        (",AAACCTGAGAAACC,AAACCTGAGAAACG\ng,1,1\nh,1\n", "line 3 has 2 fields where the header has 3"),
        ("cell,guide,reads\na,b,1\n", "none of UMI counts"),
        ("cell_barcode,num_features,feature_call,num_umis\na,1,g,5\n", "the calls of Cell Ranger, not counts"),
        ("cell,guide,umis\na,g,1\na,g,2\n", "the guide \"g\" stands more than once in cell \"a\""),
        (",AAACCTGAGAAACC,AAACCTGAGAAACG\nENSG00000141510,1,1\nENSG00000141511,1,1\n", "names genes, not guides"),
    ];
    for (text, said) in cases {
        let folder = files("no_counts", &[("t.csv", text)]);
        let error = read(&folder.file("t.csv"), &NONE).err().unwrap_or_else(|| panic!("{said}: read")).to_string();
        assert!(error.contains(said) && error.contains("t.csv"), "{error} says nothing of {said}");
    }
    // Neither HDF5 nor a table.
    let folder = files("text", &[("t.txt", "some words\nand others\n")]);
    assert!(matches!(read(&folder.file("t.txt"), &NONE), Err(Error::File(_))));
}

#[test]
fn samples_and_rows_without_guides_of_a_long_table_are_seen() {
    let text = "sample,cell,guide,umis\ns1,AAACCTGAGAAACC,g,3\ns2,AAACCTGAGAAACC,g,4\ns2,AAACCTGAGAAACG,NA,\ns2,AAACCTGAGAAACG,unmapped,9\n";
    let folder = files("samples", &[("t.csv", text)]);
    let file = read(&folder.file("t.csv"), &ReadOptions { batch: Some("sample"), ..NONE }).unwrap();
    assert_eq!(file.cell_names, ["s1_AAACCTGAGAAACC", "s2_AAACCTGAGAAACC", "s2_AAACCTGAGAAACG"]);
    assert_eq!((file.guide_names, file.counts), (vec!["g".to_owned()], vec![3.0, 4.0]));
    assert_eq!(file.batch.unwrap(), ["s1", "s2", "s2"]);
}

#[test]
fn names_that_were_taken_for_each_other_are_seen() {
    let guides: Vec<String> = (0..300).map(|guide| format!("sg{guide}")).collect();
    let folder = files(
        "swapped",
        &[("matrix.mtx", &matrix("integer")), ("a.tsv", &lines(&GUIDES)), ("b.tsv", &lines(&BARCODES))],
    );
    let (a, b) = (folder.file("a.tsv"), folder.file("b.tsv"));
    let swapped = ReadOptions { features: b.to_str(), barcodes: a.to_str(), ..NONE };
    let error = read(&folder.0, &swapped).err().unwrap().to_string();
    assert!(error.contains("they stand the other way round"), "{error}");
    // Spacers are no barcodes.
    let spacers = ["AACTCGATGGTGATGGAGTG", "ACAGGTGAATGTTCGAAGAG", "CTTCAGGTGGTTTTGTAATC"];
    fs::write(folder.file("a.tsv"), lines(&spacers)).unwrap();
    fs::write(folder.file("b.tsv"), lines(&guides.iter().map(String::as_str).collect::<Vec<_>>()[..4])).unwrap();
    read(&folder.0, &ReadOptions { features: a.to_str(), barcodes: b.to_str(), ..NONE }).unwrap();
}

#[test]
fn hdf5_files_of_other_tools_are_named() {
    let folder = Folder::new("foreign");
    let make = |name: &str, groups: &[&str]| {
        let file = hdf5::File::create(folder.file(name)).unwrap();
        groups.iter().for_each(|group| drop(file.create_group(group).unwrap()));
        drop(file);
        on_threads(2, || read_file(&folder.file(name), &NONE)).err().unwrap().to_string()
    };
    assert!(make("a.h5seurat", &["assays", "meta.data", "cell.names"]).contains("SeuratDisk::LoadH5Seurat"));
    fs::write(folder.file("a.parquet"), b"PAR1\0\0\0\0").unwrap();
    assert!(read(&folder.file("a.parquet"), &NONE).err().unwrap().to_string().contains("read_parquet"));
    fs::write(folder.file("a.rds"), b"X\n\0\0\0\x03\0\x04").unwrap();
    assert!(read(&folder.file("a.rds"), &NONE).err().unwrap().to_string().contains("readRDS"));
    fs::create_dir_all(folder.file("a.zarr")).unwrap();
    fs::write(folder.file("a.zarr/zarr.json"), "{}").unwrap();
    assert!(read(&folder.file("a.zarr"), &NONE).err().unwrap().to_string().contains("anndata.read_zarr"));
}

// ---- several files ----

/// The screen as a table, with so many UMIs more for each count.
fn lane(more: u32, guides: [&str; 3]) -> String {
    let mut text = format!("cell,{}\n", guides.join(","));
    for (barcode, counts) in BARCODES.iter().zip(COUNTS) {
        let counts: Vec<String> = counts.iter().map(|&n| if n > 0 { n + more } else { 0 }.to_string()).collect();
        text += &format!("{barcode},{}\n", counts.join(","));
    }
    text
}

#[test]
fn several_files_are_one_screen() {
    let sheet = "sample,path,donor\nL1,a.csv,d1\nL2,sub/b.csv,\n";
    let folder = files("several", &[("a.csv", &lane(0, GUIDES)), ("sheet.csv", sheet)]);
    fs::create_dir_all(folder.file("sub")).unwrap();
    // The same guides in another order.
    fs::write(folder.file("sub/b.csv"), lane(1, ["sgNT", "sgB_1", "sgA_1"])).unwrap();
    let options = ReadOptions { batch: Some("sample"), ..NONE };
    let file = read(&folder.file("sheet.csv"), &options).unwrap();
    assert_eq!((file.cell_names.len(), &file.guide_names[..]), (8, &GUIDES.map(String::from)[..]));
    assert_eq!((&*file.cell_names[0], &*file.cell_names[4]), ("L1_AAACCTGAGAAACC", "L2_AAACCTGAGAAACC"));
    assert_eq!(file.batch.as_ref().unwrap()[3..5], ["L1", "L2"]);
    assert_eq!((file.samples.columns[0].0.as_str(), &file.samples.n_cells), ("sample", &vec![4, 4]));
    assert_eq!(file.samples.column("donor"), Some(&[Some("d1".to_owned()), None][..]));
    // Written as 6 of sgNT, 0 of sgB_1 and 2 of sgA_1.
    let row = |cell: usize| file.indptr[cell] as usize..file.indptr[cell + 1] as usize;
    assert_eq!((&file.guides[row(4)], &file.counts[row(4)]), (&[0, 2][..], &[2.0, 6.0][..]));
    file.guide_counts().unwrap();
    assert!(read(&folder.file("sheet.csv"), &ReadOptions { batch: Some("donor"), ..NONE }).is_err());

    let inputs = |names: [&str; 2]| {
        let input =
            |(sample, name): (&str, &str)| Input { sample: sample.into(), path: folder.file(name), columns: vec![] };
        ["a", "b"].into_iter().zip(names).map(input).collect::<Vec<_>>()
    };
    fs::write(folder.file("other.csv"), lane(0, ["sgA_1", "sgX", "sgNT"])).unwrap();
    let differ = inputs(["a.csv", "other.csv"]);
    let error = on_threads(2, || samples::read(&differ, &NONE)).err().unwrap().to_string();
    assert!(error.contains("\"b\"") && error.contains("lacks \"sgB_1\" and has \"sgX\" more"), "{error}");
    let union = on_threads(2, || samples::read(&differ, &ReadOptions { union: true, ..NONE })).unwrap();
    assert_eq!(union.guide_names, ["sgA_1", "sgB_1", "sgNT", "sgX"]);
    union.guide_counts().unwrap();
    fs::write(folder.file("long.csv"), "cell,g\nb_AAAC,1\nx,1\n").unwrap();
    fs::write(folder.file("short.csv"), "cell,g\nAAAC,1\ny,1\n").unwrap();
    let mut alike = inputs(["long.csv", "short.csv"]);
    alike[1].sample = "a_b".into();
    assert!(matches!(on_threads(2, || samples::read(&alike, &NONE)), Err(Error::Names(_))));
    let twice: Vec<Input> =
        inputs(["a.csv", "a.csv"]).into_iter().map(|input| Input { sample: "s".into(), ..input }).collect();
    assert!(matches!(on_threads(2, || samples::read(&twice, &NONE)), Err(Error::Argument(_))));
}

#[test]
fn runs_and_archives_are_found_in_their_folders() {
    let (barcodes, guides) = (lines(&BARCODES), lines(&GUIDES));
    let put = |folder: &Path| {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in
            [("matrix.mtx", matrix("integer")), ("barcodes.tsv", barcodes.clone()), ("features.tsv", guides.clone())]
        {
            fs::write(folder.join(name), text).unwrap();
        }
    };
    // cellranger count.
    let one = Folder::new("count");
    put(&one.file("outs/filtered_feature_bc_matrix"));
    check("count", read(&one.0, &NONE));
    check("outs", read(&one.file("outs"), &NONE));
    // cellranger multi.
    let multi = Folder::new("multi");
    for sample in ["s1", "s2"] {
        put(&multi.file(&format!("outs/per_sample_outs/{sample}/count/sample_filtered_feature_bc_matrix")));
    }
    assert_eq!(read(&multi.0, &NONE).unwrap().cell_names[4], "s2_AAACCTGAGAAACC");
    assert!(inspect(&multi.0).unwrap()[0].2.contains("2 samples"));
    // Several runs.
    let runs = Folder::new("runs");
    for run in ["lane1", "lane2"] {
        put(&runs.file(&format!("{run}/outs/filtered_feature_bc_matrix")));
    }
    assert!(matches!(samples::find(&runs.0), Ok(Found::Several(inputs)) if inputs[1].sample == "lane2"));
    // GEO.
    let geo = Folder::new("geo");
    for sample in ["GSM1_s1_sgRNA", "GSM2_s2_sgRNA", "GSM1_s1_RNA"] {
        fs::write(geo.file(&format!("{sample}_matrix.mtx")), matrix("integer")).unwrap();
        fs::write(geo.file(&format!("{sample}_barcodes.tsv")), &barcodes).unwrap();
        fs::write(geo.file(&format!("{sample}_features.tsv")), &guides).unwrap();
    }
    let file = read(&geo.0, &NONE).unwrap();
    assert_eq!((file.cell_names.len(), &*file.cell_names[4]), (8, "GSM2_s2_sgRNA_AAACCTGAGAAACC"));
}

#[test]
fn suffixes_of_barcodes_are_batches() {
    let folder = files("suffix", &[("t.csv", "cell,g\nAAACCTGAGAAACC-1,3\nAAACCTGAGAAACC-2,4\n")]);
    let options = ReadOptions { batch: Some("barcode_suffix"), ..NONE };
    assert_eq!(read(&folder.file("t.csv"), &options).unwrap().batch.unwrap(), ["1", "2"]);
    fs::write(folder.file("t.csv"), "cell,g\nAAACCTGAGAAACC,3\nAAACCTGAGAAACG,4\n").unwrap();
    assert!(matches!(read(&folder.file("t.csv"), &options), Err(Error::Batch(_))));
}
