//! The words that pipelines and people have for the same thing: the one list of them, for files, for var, for guide tables and for
//! tables of counts. Case, blanks and punctuation do not matter.

/// The columns of a guide table, with the names that others have for them, the surest first.
pub const GUIDE_COLUMNS: [(&str, &[&str]); 5] = [
    (
        "guide_id",
        &[
            "guide_id",
            "guide",
            "guide_name",
            "grna_id",
            "grna",
            "grna_name",
            "sgrna_id",
            "sgrna",
            "sgrna_name",
            "guide_identity",
            "protospacer_id",
            "sgid_ab",
            "sgid",
            "unique_sgrna_pair_id",
            "feature_id",
            "feature_name",
            "id",
            "name",
        ],
    ),
    (
        "target",
        &[
            "target",
            "target_gene_name",
            "intended_target_name",
            "grna_target",
            "guide_target",
            "target_gene",
            "target_gene_symbol",
            "target_symbol",
            "target_name",
            "targeted_gene",
            "gene_target",
            "gene",
            "gene_symbol",
        ],
    ),
    ("construct", &["construct", "construct_id", "vector_id", "vector"]),
    ("type", &["type", "guide_type", "grna_type", "sgrna_type"]),
    (
        "sequence",
        &[
            "sequence",
            "spacer",
            "spacer_sequence",
            "protospacer",
            "protospacer_sequence",
            "guide_sequence",
            "grna_sequence",
            "sgrna_sequence",
            "sgrna_target_sequence",
            "targeting_sequence",
        ],
    ),
];

/// Columns that name the cells.
pub const CELL: &[&str] = &[
    "cell_barcode",
    "bc_wells",
    "barcode",
    "cell_id",
    "cell_name",
    "cell",
    "cell_index",
    "cell_bc",
    "cbc",
    "cb",
    "barcodes",
    "cells",
];

/// Columns of counts, the most processed first.
pub const COUNT: &[&str] = &[
    "rsec_adjusted_molecules",
    "umi_count",
    "umi_counts",
    "n_umi",
    "n_umis",
    "num_umis",
    "umis",
    "umi",
    "dbec_adjusted_molecules",
    "count",
    "counts",
    "n",
    "molecules",
];

/// Columns that name the features of a long table beside those for guides.
pub const FEATURE: &[&str] = &["feature", "bioproduct", "gene", "tag", "gene_name", "gene_id"];

/// Letters and digits in lower case.
pub fn bare(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The place of the column that has the surest of these names.
pub fn find(columns: &[impl AsRef<str>], words: &[&str]) -> Option<usize> {
    let columns: Vec<String> = columns.iter().map(|column| bare(column.as_ref())).collect();
    words.iter().find_map(|word| {
        let word = bare(word);
        columns.iter().position(|column| *column == word)
    })
}

/// The place of the column of a guide table under that name or one that others have for it.
pub fn find_guide_column(columns: &[impl AsRef<str>], name: &str) -> Option<usize> {
    let (_, words) = GUIDE_COLUMNS.iter().find(|(known, _)| *known == name)?;
    // Its own name goes first, as it is written.
    columns.iter().position(|column| column.as_ref() == name).or_else(|| find(columns, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_the_words_of_others() {
        let of = |columns: &[&str], name: &str| find_guide_column(columns, name);
        assert_eq!(of(&["id", "name", "read", "target_gene_id", "target_gene_name"], "guide_id"), Some(0));
        assert_eq!(of(&["id", "name", "read", "target_gene_id", "target_gene_name"], "target"), Some(4));
        assert_eq!(of(&["gRNA_ID", "gRNA target", "vector.id"], "construct"), Some(2));
        assert_eq!(of(&["Input", "Target Gene Symbol", "sgRNA Sequence"], "sequence"), Some(2));
        assert_eq!(of(&["Input", "Target Gene Symbol", "sgRNA Sequence"], "guide_id"), None);
        assert_eq!(of(&["gene", "target"], "target"), Some(1));
        assert_eq!(find(&["Cell_Index", "Bioproduct", "Raw_Molecules", "RSEC_Adjusted_Molecules"], COUNT), Some(3));
    }

    /// No word stands for two columns.
    #[test]
    fn words_are_of_one_column() {
        let all: Vec<String> =
            GUIDE_COLUMNS.iter().flat_map(|(_, words)| words.iter().map(|word| bare(word))).collect();
        assert!((0..all.len()).all(|at| !all[..at].contains(&all[at])));
        assert!(CELL.iter().chain(COUNT).all(|word| !all.contains(&bare(word))));
    }
}
