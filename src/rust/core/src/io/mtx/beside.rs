//! Which files lie beside a matrix and name its features and cells. Pipelines and archives name them in many ways: the words that a
//! file has more than the matrix tell what it is, those that both have that they belong together.
use std::path::{Path, PathBuf};

use super::super::h5ad::values::{quoted, Source};
use super::super::text::file_name;
use crate::Result;

/// What the names in a file are of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Role {
    Features,
    Cells,
    /// What kallisto puts before the barcodes of several samples.
    Prefixes,
    Rows,
    Columns,
}

/// The files beside a matrix that may name its sides.
#[derive(Default, Debug)]
pub struct Beside {
    pub features: Vec<PathBuf>,
    pub cells: Vec<PathBuf>,
    pub prefixes: Option<PathBuf>,
    /// Of a matrix whose files say rows and columns only.
    pub sides: Option<[PathBuf; 2]>,
}

const FEATURES: &[&str] = &[
    "features",
    "feature",
    "genes",
    "gene",
    "guides",
    "guide",
    "grnas",
    "grna",
    "sgrnas",
    "sgrna",
    "genenames",
    "featurenames",
    "guidenames",
    "grnanames",
    "protospacers",
    "tags",
];
const CELLS: &[&str] = &["barcodes", "barcode", "cells", "cell", "cellnames", "cellbarcodes", "cellids", "bcs"];
/// Words that tell nothing of whose file it is.
const PLAIN: &[&str] = &[
    "matrix", "mtx", "count", "counts", "mat", "umi", "umis", "dge", "all", "metadata", "names", "name", "ids", "id",
    "list", "reads", "exprs",
];

/// The name without .mtx, .mtx.gz and the like, if it has it.
pub fn stem(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let name = name.strip_suffix(".txt").filter(|name| name.ends_with(".mtx")).unwrap_or(name);
    name.strip_suffix(".mtx")
}

/// The names of the files and folders there, sorted.
pub fn listed(folder: Source) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder.0).map_err(|error| folder.file(format!("cannot be read: {error}.")))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The one .mtx of a folder, and what is to be said of it. Of several, STARsolo's other ways to count reads of many genes for one,
/// `matrix.mtx` is it, or the only one that is named for guides.
pub fn find_matrix(folder: Source) -> Result<(PathBuf, Option<String>)> {
    let names = listed(folder)?;
    let found: Vec<&String> = names.iter().filter(|name| stem(name).is_some()).collect();
    let that = |fits: fn(&str) -> bool| -> Vec<&String> {
        found.iter().copied().filter(|name| stem(name).is_some_and(fits)).collect()
    };
    let plain = that(|stem| stem == "matrix");
    let of_guides = that(|stem| words(stem).iter().any(|word| is_of_guides(word)));
    match (&found[..], &plain[..], &of_guides[..]) {
        ([one], ..) | (_, [one], []) => Ok((folder.0.join(one), None)),
        ([], ..) => {
            let may_be = |name: &&String| {
                let path = folder.0.join(name);
                let bare = name.trim_end_matches(".gz");
                [".h5", ".h5ad", ".h5mu", ".csv", ".tsv", ".st"].iter().any(|end| bare.ends_with(end)) || path.is_dir()
            };
            let others: Vec<&String> = names.iter().filter(may_be).collect();
            let hint = if others.is_empty() { String::new() } else { format!("\n  It holds {}.", quoted(&others)) };
            Err(folder.file(format!(
                "is a folder without a Matrix Market file (.mtx, .mtx.gz).{hint}\n  Give the path of the file, or of the folder, \
                 with the counts."
            )))
        }
        (_, _, [one]) => Ok((
            folder.0.join(one),
            Some(format!("Taking \"{one}\" of {} Matrix Market files: it is named for guides.", found.len())),
        )),
        _ => Err(folder.file(format!(
            "is a folder with several Matrix Market files: {}.\n  Give the path of the one with the counts.",
            quoted(&found)
        ))),
    }
}

/// The matrices of a folder that have files of names of their own, as GEO has them, each with what it is named for. Of matrices of which
/// some are named for guides, those.
pub fn triplets(folder: Source) -> Result<Vec<(String, PathBuf)>> {
    let there = listed(folder)?;
    let mut found: Vec<(String, PathBuf, bool)> = vec![];
    for name in &there {
        let Some(stem) = stem(name) else { continue };
        let of_matrix = words(stem);
        let roles: Vec<Role> = there
            .iter()
            .filter_map(|file| judge(&of_matrix, file).filter(|(_, far, _)| *far == 0).map(|(role, ..)| role))
            .collect();
        let own = of_matrix.iter().any(|word| !PLAIN.contains(&word.as_str()));
        if own && roles.contains(&Role::Cells) && roles.contains(&Role::Features) {
            let of_guides = of_matrix.iter().any(|word| is_of_guides(word));
            found.push((sample(stem), folder.0.join(name), of_guides));
        }
    }
    if found.iter().any(|(.., of_guides)| *of_guides) {
        found.retain(|(.., of_guides)| *of_guides);
    }
    Ok(found.into_iter().map(|(sample, path, _)| (sample, path)).collect())
}

/// The name of a matrix without the words that all have.
fn sample(stem: &str) -> String {
    let mut name = stem;
    while let Some((start, _)) = name
        .rsplit_once(|c: char| !c.is_alphanumeric())
        .filter(|(start, end)| !start.is_empty() && PLAIN.contains(&end.to_lowercase().as_str()))
    {
        name = start;
    }
    name.to_owned()
}

fn is_of_guides(word: &str) -> bool {
    ["crispr", "gdo", "protospacer"].contains(&word)
        || word.trim_end_matches('s').ends_with("guide")
        || word.trim_end_matches('s').ends_with("grna")
}

/// The words of a name, in lower case.
fn words(name: &str) -> Vec<String> {
    let parts = name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_lowercase).collect()
}

/// The words of `all` without those of `taken`, each as often as it is there.
fn less(all: &[String], taken: &[String]) -> Vec<String> {
    let mut taken = taken.to_vec();
    let mut rest = vec![];
    for word in all {
        match taken.iter().position(|other| other == word) {
            Some(at) => drop(taken.swap_remove(at)),
            None => rest.push(word.clone()),
        }
    }
    rest
}

/// What the file names, and how far it is from the name of the matrix: 0 where it differs in plain words only, 1 where it lacks words
/// of the matrix, 2 where it has words of its own; and how many plain words it has more.
fn judge(matrix: &[String], file: &str) -> Option<(Role, usize, usize)> {
    let name = file.strip_suffix(".gz").unwrap_or(file);
    let (name, _) = name.rsplit_once('.').filter(|(_, end)| ["tsv", "txt", "csv", "tab"].contains(end))?;
    let own = words(name);
    let is = |word: &String, known: &[&str]| known.contains(&word.as_str());
    let rest = less(&own, matrix);
    // A file that has no word of its own is told by the last that it has.
    let telling = if rest.iter().any(|word| role_of(word).is_some()) { rest.clone() } else { own.clone() };
    let role = if telling.iter().any(|word| is(word, CELLS)) {
        if telling.iter().any(|word| word == "prefix") {
            Role::Prefixes
        } else {
            Role::Cells
        }
    } else {
        telling.iter().rev().find_map(|word| role_of(word))?
    };
    let of_role = |word: &String| role_of(word).is_some() || word == "prefix";
    let extra = rest.iter().filter(|word| !is(word, PLAIN) && !of_role(word)).count();
    let plain = rest.iter().filter(|word| is(word, PLAIN)).count();
    let lacking = less(matrix, &own).iter().filter(|word| !is(word, PLAIN)).count();
    let far = match (extra, lacking) {
        (0, 0) => 0,
        (0, _) => 1,
        _ => 2,
    };
    Some((role, far, plain + lacking))
}

fn role_of(word: &str) -> Option<Role> {
    match word {
        "rows" | "rownames" => Some(Role::Rows),
        "cols" | "columns" | "colnames" => Some(Role::Columns),
        _ if CELLS.contains(&word) => Some(Role::Cells),
        _ if FEATURES.contains(&word) => Some(Role::Features),
        _ => None,
    }
}

/// The files beside the matrix, of each role those that are nearest to it by name.
pub fn find(matrix: Source) -> Result<Beside> {
    let folder = matrix.0.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file_name(matrix.0);
    let of_matrix = words(stem(&name).unwrap_or(&name));
    let there = listed(Source(folder))?;
    // A name that is only alike may be of another matrix.
    let is_alone = there.iter().filter(|name| stem(name).is_some()).count() == 1;
    let judged: Vec<(Role, usize, usize, &String)> = there
        .iter()
        .filter_map(|file| judge(&of_matrix, file).map(|(role, far, plain)| (role, far, plain, file)))
        .filter(|(_, far, ..)| *far < 2 || is_alone)
        .collect();
    let of = |wanted: Role| -> Vec<PathBuf> {
        let of_role = || judged.iter().filter(|(role, ..)| *role == wanted);
        let nearest = of_role().map(|(_, far, ..)| *far).min();
        let mut found: Vec<_> = of_role().filter(|(_, far, ..)| Some(*far) == nearest).collect();
        found.sort_by_key(|(_, _, plain, _)| *plain);
        found.into_iter().map(|(.., file)| folder.join(file)).collect()
    };
    let (rows, columns) = (of(Role::Rows), of(Role::Columns));
    Ok(Beside {
        features: of(Role::Features),
        cells: of(Role::Cells),
        prefixes: of(Role::Prefixes).into_iter().next(),
        sides: rows.into_iter().next().zip(columns.into_iter().next()).map(|(rows, columns)| [rows, columns]),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_the_words_beside_those_of_the_matrix() {
        let of =
            |matrix: &str, file: &str| judge(&words(stem(matrix).unwrap()), file).map(|(role, far, _)| (role, far));
        let cases = [
            ("matrix.mtx", "features.tsv.gz", Role::Features, 0),
            ("matrix.mtx.gz", "barcodes.tsv", Role::Cells, 0),
            ("count_matrix.mtx", "all_guides.csv", Role::Features, 0),
            ("DGE.mtx", "cell_metadata.csv", Role::Cells, 0),
            ("cells_x_features.mtx", "cells_x_features.genes.txt", Role::Features, 0),
            ("cells_x_features.mtx", "cells_x_features.genes.names.txt", Role::Features, 0),
            ("cells_x_features.mtx", "cells_x_features.barcodes.txt", Role::Cells, 0),
            ("cells_x_genes.mtx", "cells_x_genes.barcodes.prefix.txt", Role::Prefixes, 0),
            ("GSM1_sgRNA.mtx.gz", "GSM1_sgRNA_features.tsv.gz", Role::Features, 0),
            ("GSM1_sgRNA.mtx.gz", "GSM1_RNA_features.tsv.gz", Role::Features, 2),
            ("GSM1_sgRNA.mtx.gz", "GSM1_barcodes.tsv.gz", Role::Cells, 1),
            ("GSE_matrix_guide.mtx.gz", "GSE_barcodes_guide.tsv.gz", Role::Cells, 0),
            ("GSE_matrix_guide.mtx.gz", "GSE_features_guide.tsv.gz", Role::Features, 0),
            ("GSE_guide.matrix.mtx", "GSE_guide.guides.tsv", Role::Features, 0),
            ("screen.mtx", "screen.gRNAs.txt.gz", Role::Features, 0),
            ("screen.mtx", "screen.cells.txt", Role::Cells, 0),
            ("GSM2_k562.mtx.txt.gz", "GSM2_k562_genenames.csv.gz", Role::Features, 0),
            ("quants_mat.mtx", "quants_mat_rows.txt", Role::Rows, 0),
            ("UniqueAndMult-EM.mtx", "barcodes.tsv", Role::Cells, 1),
            ("guides.mtx", "guides.tsv", Role::Features, 0),
        ];
        for (matrix, file, role, far) in cases {
            assert_eq!(of(matrix, file), Some((role, far)), "{matrix} {file}");
        }
        assert_eq!(of("matrix.mtx", "barcodes.h5"), None);
        assert_eq!(of("matrix.mtx", "summary.csv"), None);
    }
}
