//! Which features of a file are guides and which are genes; which names are those of cells; and what files call the modality of the
//! guides.
use std::collections::HashSet;

use super::entries::number;
use super::h5ad::frame::first_twice;
use super::h5ad::values::{quoted, quoted_to, Source};
use super::words::bare;
use crate::Result;

/// The feature types of Cell Ranger ("CRISPR Guide Capture", "CRISPR Direct Capture") and what people write by hand.
pub fn is_guide_type(feature_type: &str) -> bool {
    let lower = feature_type.to_lowercase();
    ["crispr", "guide", "grna"].iter().any(|word| lower.contains(word))
}

/// The names under which people keep guides: CRISPR, "CRISPR Guide Capture", guides, gRNA, sgRNA_counts, GDO ...
pub fn is_guide_name(name: &str) -> bool {
    let bare: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    if bare.contains("crispr") {
        return true;
    }
    let end = ["capture", "counts", "count", "umis", "umi"].iter().find_map(|end| bare.strip_suffix(end));
    ["guide", "gdo", "grna", "sgrna", "protospacer"].iter().any(|word| {
        let is = |text: &str| text == *word || text.strip_suffix('s') == Some(word);
        is(&bare) || end.is_some_and(is)
    })
}

/// What a file says of its features.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    pub names: &'a [String],
    /// Other names of the same features, such as Ensembl ids beside symbols.
    pub also: &'a [Vec<String>],
    /// The type of each, where the file says it.
    pub types: Option<&'a [String]>,
}

/// The guides among the features of a file.
pub struct Chosen {
    /// Of each feature, its place among the guides, if it is one.
    pub places: Vec<Option<i32>>,
    /// The features that are guides.
    pub kept: Vec<usize>,
    /// What is to be said of it.
    pub choices: Vec<String>,
}

impl Chosen {
    fn new(is_guide: impl Iterator<Item = bool>) -> Self {
        let mut chosen = Chosen { places: vec![], kept: vec![], choices: vec![] };
        for (feature, is_guide) in is_guide.enumerate() {
            chosen.places.push(is_guide.then_some(chosen.kept.len() as i32));
            if is_guide {
                chosen.kept.push(feature);
            }
        }
        chosen
    }

    pub fn is_all(&self) -> bool {
        self.kept.len() == self.places.len()
    }

    /// Those of the values that belong to guides.
    pub fn of<T: Clone>(&self, values: &[T]) -> Vec<T> {
        self.kept.iter().map(|&feature| values[feature].clone()).collect()
    }
}

/// The guides among the features: those of the type that is `wanted`, or without that of the one type that indicates guides; where no
/// type does, those that the guide table of the user (`table`, its ids) has; all features where no types are said, unless they are
/// genes. What counts reads without a guide is never one.
pub fn choose(source: Source, features: Described, wanted: Option<&str>, table: Option<&[String]>) -> Result<Chosen> {
    let names = features.names;
    let mut chosen = match (features.types, wanted) {
        (Some(types), _) if types.len() == names.len() => by_type(source, types, wanted).or_else(|error| {
            // A type that was asked for, or several that may be meant, are the user's to mend.
            let no_type = wanted.is_none() && !types.iter().any(|name| is_guide_type(name));
            no_type.then(|| by_table(names, table)).flatten().ok_or(error)
        })?,
        (_, Some(wanted)) => {
            return Err(source.format(format!(
                "does not say the types of its features, so none has the type \"{wanted}\". Leave `feature_type` out."
            )))
        }
        _ => Chosen::new(names.iter().map(|_| true)),
    };
    let also: Vec<Vec<String>> = features.also.iter().map(|other| chosen.of(other)).collect();
    let all: Vec<&[String]> = also.iter().map(Vec::as_slice).collect();
    if let Some(why) = are_genes(&chosen.of(names), &all) {
        chosen = by_table(names, table).ok_or_else(|| {
            source.format(format!("names genes, not guides: {why}.\n  Give the counts of the guides, or the guide table as `guides`, by which guides are found among genes."))
        })?;
    }
    Ok(without_leftovers(names, chosen))
}

/// The features whose type is `wanted`, or without that the one type that indicates guides.
fn by_type(source: Source, types: &[String], wanted: Option<&str>) -> Result<Chosen> {
    let mut seen: Vec<(&str, usize)> = vec![];
    for feature_type in types {
        match seen.iter_mut().find(|(name, _)| name == feature_type) {
            Some((_, n)) => *n += 1,
            None => seen.push((feature_type, 1)),
        }
    }
    let counted: Vec<String> = seen.iter().map(|(name, n)| format!("\"{name}\" ({n})")).collect();
    let counted = counted.join(", ");
    let taken = match wanted {
        Some(wanted) => match seen.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)) {
            Some((name, _)) => *name,
            None => {
                return Err(source.format(format!("has no features of the type \"{wanted}\". Its types: {counted}.")))
            }
        },
        None => {
            let guides: Vec<&str> = seen.iter().map(|(name, _)| *name).filter(|name| is_guide_type(name)).collect();
            match guides[..] {
                [one] => one,
                [] => {
                    return Err(source.format(format!(
                        "has no features of a type for guides. Its types: {counted}.\n  If one of them are the guides, give it \
                         as `feature_type`."
                    )))
                }
                _ => {
                    return Err(source.format(format!(
                        "has features of several types for guides: {}.\n  Give one as `feature_type`.",
                        quoted(&guides)
                    )))
                }
            }
        }
    };
    let mut chosen = Chosen::new(types.iter().map(|feature_type| feature_type == taken));
    let others = types.len() - chosen.kept.len();
    if others > 0 {
        let n = chosen.kept.len();
        chosen.choices.push(format!(
            "Taking the {n} features of the type \"{taken}\" as guides; {others} of other types are left out."
        ));
    }
    Ok(chosen)
}

/// The features that are in the guide table; none where it has none of them.
fn by_table(names: &[String], table: Option<&[String]>) -> Option<Chosen> {
    let ids: HashSet<&str> = table?.iter().map(String::as_str).collect();
    let mut chosen = Chosen::new(names.iter().map(|name| ids.contains(name.as_str())));
    let (n, others) = (chosen.kept.len(), names.len() - chosen.kept.len());
    chosen
        .choices
        .push(format!("Taking the {n} features that are in the guide table as guides; {others} others are left out."));
    (n > 0).then_some(chosen)
}

/// Rows for reads without a guide, which CITE-seq-Count, HTSeq and others write beside those of the guides.
fn without_leftovers(names: &[String], chosen: Chosen) -> Chosen {
    let left: Vec<&str> = chosen.kept.iter().map(|&at| names[at].as_str()).filter(|name| is_leftover(name)).collect();
    if left.is_empty() {
        return chosen;
    }
    let said =
        format!("Leaving out {}: {} no guide.", quoted(&left), if left.len() == 1 { "it is" } else { "they are" });
    let mut kept =
        Chosen::new(names.iter().zip(&chosen.places).map(|(name, place)| place.is_some() && !is_leftover(name)));
    kept.choices = chosen.choices;
    kept.choices.push(said);
    kept
}

/// Whether the name stands for what is no guide: reads that match none, or too many.
pub fn is_leftover(name: &str) -> bool {
    const LEFTOVERS: &[&str] = &[
        "unmapped",
        "unassigned",
        "unaligned",
        "notaligned",
        "nomatch",
        "nofeature",
        "noguide",
        "nogrna",
        "nosgrna",
        "ambiguous",
        "multimapped",
        "multimapping",
        "alignmentnotunique",
        "toolowaqual",
        "badstruct",
        "totalreads",
        "undetermined",
    ];
    name.len() < 40 && LEFTOVERS.contains(&bare(name).as_str())
}

/// Why the features are genes, if they are: most have Ensembl ids, or there are thousands with the symbols of genes that every cell
/// expresses.
pub fn are_genes(names: &[String], also: &[&[String]]) -> Option<String> {
    for column in also.iter().copied().chain([names]) {
        let genes = column.iter().filter(|name| is_gene_id(name)).count();
        if 2 * genes > column.len() {
            return Some(format!("{genes} of {} features have Ensembl ids", column.len()));
        }
    }
    if names.len() < TRANSCRIPTOME {
        return None;
    }
    let symbols = also.iter().copied().chain([names]).find(|column| are_symbols(column));
    if let Some(symbols) = symbols {
        return Some(format!(
            "{} features with the symbols of genes, such as {}",
            symbols.len(),
            quoted_to(3, symbols)
        ));
    }
    also.iter().copied().chain([names]).find_map(|column| {
        let bare: HashSet<String> = column.iter().map(|name| name.to_ascii_uppercase()).collect();
        let found: Vec<&str> = EVERYWHERE.iter().copied().filter(|gene| bare.contains(*gene)).collect();
        (found.len() >= EVERYWHERE.len() / 2)
            .then(|| format!("{} features with the symbols of genes such as {}", column.len(), quoted_to(3, &found)))
    })
}

/// Whether nearly all names are symbols of genes, each of its own: KLF1, HLA-A, Rpl13a, AC004556.3. A library of guides has several for
/// each gene, numbers or controls.
fn are_symbols(names: &[String]) -> bool {
    let is_symbol = |name: &&String| {
        let start = name.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
        start && plain && name.len() >= 2 && !(name.len() >= 15 && is_nucleotides(name))
    };
    let is_control = |name: &String| {
        let bare = bare(name);
        ["nontarget", "safetarget", "control", "scramble", "guide", "grna"].iter().any(|word| bare.contains(word))
    };
    if 20 * names.iter().filter(is_symbol).count() < 19 * names.len() || names.iter().any(is_control) {
        return false;
    }
    // Of one gene: what is left without a number at the end.
    let genes: HashSet<&str> = names
        .iter()
        .map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '.']))
        .collect();
    let of_their_own: HashSet<&str> = names
        .iter()
        .map(|name| {
            name.rsplit_once(['-', '.'])
                .filter(|(_, end)| number(end.as_bytes()).is_some())
                .map_or(name.as_str(), |(gene, _)| gene)
        })
        .collect();
    5 * genes.len() >= names.len() && 10 * of_their_own.len() >= 9 * names.len()
}

/// A library of guides that are named as genes has fewer of those that follow.
const TRANSCRIPTOME: usize = 1000;

/// Genes that annotations have and cells express; most cannot be targeted, or are not worth it.
const EVERYWHERE: [&str; 16] = [
    "MT-ND1", "MT-ND2", "MT-ND4", "MT-CO1", "MT-CO2", "MT-CO3", "MT-CYB", "MT-ATP6", "ACTB", "GAPDH", "B2M", "MALAT1",
    "EEF1A1", "TMSB4X", "FTH1", "PTMA",
];

/// ENSG00000141510, ENSMUSG00000059552.4, GRCh38_ENSG00000141510; and the ids of fly and worm.
fn is_gene_id(name: &str) -> bool {
    let genomes = ["GRCh38", "GRCh37", "GRCm39", "GRCm38", "hg38", "hg19", "mm10", "mm39"];
    let name =
        genomes.iter().find_map(|genome| name.strip_prefix(genome)).map_or(name, |id| id.trim_start_matches('_'));
    let id = name.split('.').next().unwrap_or(name);
    let all_digits = |number: &str, n| number.len() == n && number.bytes().all(|byte| byte.is_ascii_digit());
    if id.strip_prefix("FBgn").is_some_and(|n| all_digits(n, 7))
        || id.strip_prefix("WBGene").is_some_and(|n| all_digits(n, 8))
    {
        return true;
    }
    let Some(rest) = id.strip_prefix("ENS") else { return false };
    let number = rest.trim_start_matches(|c: char| c.is_ascii_uppercase());
    rest[..rest.len() - number.len()].ends_with('G') && all_digits(number, 11)
}

/// Whether nearly all names are those of cells: nucleotides, alone or with what tells the sample, which many cells share; or the
/// wells of Parse.
pub fn are_barcodes(names: &[String]) -> bool {
    // Guides that are named by their spacers.
    if names.iter().all(|name| (19..=21).contains(&name.len()) && is_nucleotides(name)) {
        return false;
    }
    let mut rest: HashSet<String> = HashSet::new();
    let n = names
        .iter()
        .filter(|name| {
            without_barcode(name).is_some_and(|other| {
                rest.insert(other);
                true
            })
        })
        .count();
    // Guides whose names end in their sequence have a name each.
    10 * n >= 9 * names.len() && n > 0 && (rest.len() == 1 || 2 * rest.len() <= n)
}

/// What a name says beside the barcode in it, if there is one.
fn without_barcode(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let wells = parts.len() >= 3 && parts[..3].iter().all(|part| part.len() == 2 && number(part.as_bytes()).is_some());
    if wells {
        return Some(parts[3..].join("-"));
    }
    let is_barcode = |part: &str| part.len() >= 8 && is_nucleotides(part);
    parts
        .iter()
        .any(|part| is_barcode(part))
        .then(|| parts.into_iter().filter(|part| !is_barcode(part)).collect::<Vec<_>>().join("-"))
}

fn is_nucleotides(text: &str) -> bool {
    text.bytes().all(|base| b"ACGTN".contains(&base))
}

/// An error where the guides are named by barcodes and the cells are not: whoever wrote the file took one for the other.
pub fn refuse_transposed(source: Source, guides: &[String], cells: &[String], mend: &str) -> Result<()> {
    if guides.len() < 2 || !are_barcodes(guides) || are_barcodes(cells) {
        return Ok(());
    }
    Err(source.names(format!(
        "the guides are named by barcodes, such as \"{}\", and the cells otherwise, such as {}: they stand the other way round.\n  {mend}",
        guides[0],
        quoted_to(2, cells)
    )))
}

/// That there are names, each there and each once. `row` is a cell or a guide, `place` where the names stand.
pub fn check_names(source: Source, names: &[String], row: &str, place: &str) -> Result<()> {
    if names.is_empty() {
        return Err(source.counts(format!("{place} names no {row}s.")));
    }
    if let Some(at) = names.iter().position(String::is_empty) {
        return Err(source.names(format!("{row} {} has no name in {place}. Every {row} needs a name.", at + 1)));
    }
    match first_twice(names) {
        None => Ok(()),
        Some((first, again)) => Err(source.names(format!(
            "the {row} name \"{}\" stands more than once in {place} (entries {} and {}).\n  Make the names unique.",
            names[again],
            first + 1,
            again + 1
        ))),
    }
}

/// Whether the modality is named for the expression of genes.
pub fn is_gene_modality(name: &str) -> bool {
    ["rna", "geneexpression", "gex", "genes", "gene", "sct", "mrna", "spliced", "unspliced"]
        .contains(&bare(name).as_str())
}

/// A column of a guide table, unless nothing is said in it.
pub fn fact(name: &str, values: Vec<Option<String>>) -> Option<(String, Vec<Option<String>>)> {
    let values: Vec<_> = values.into_iter().map(|value| value.filter(|text| !text.is_empty())).collect();
    values.iter().any(Option::is_some).then(|| (name.to_owned(), values))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    const SOURCE: fn() -> Source<'static> = || Source(Path::new("f.h5"));

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn names_of_guides_are_known() {
        for name in [
            "CRISPR",
            "CRISPR Guide Capture",
            "guides",
            "Guide",
            "gRNA",
            "sgRNA_counts",
            "GDO",
            "gdo.umi",
            "protospacers",
        ] {
            assert!(is_guide_name(name), "{name}");
        }
        for name in ["rna", "RNA", "Gene Expression", "hashing", "ADT", "guided", "counts", "", "Antibody Capture"] {
            assert!(!is_guide_name(name), "{name}");
        }
        for name in ["CRISPR Guide Capture", "CRISPR Direct Capture", "sgRNA", "Guide Capture"] {
            assert!(is_guide_type(name), "{name}");
        }
        assert!(!is_guide_type("Gene Expression") && !is_guide_type("Custom"));
    }

    fn take(types: Option<&[&str]>, names: &[&str], wanted: Option<&str>, table: Option<&[&str]>) -> Result<Chosen> {
        let (types, names, table) = (types.map(texts), texts(names), table.map(texts));
        choose(SOURCE(), Described { names: &names, also: &[], types: types.as_deref() }, wanted, table.as_deref())
    }

    #[test]
    fn the_type_is_found_or_asked_for() {
        let types = ["Gene Expression", "CRISPR Guide Capture", "Custom", "CRISPR Guide Capture"];
        let of = |types: &[&str], wanted| take(Some(types), &["a", "b", "c", "d"][..types.len()], wanted, None);
        let chosen = of(&types, None).unwrap();
        assert_eq!((&chosen.kept[..], &chosen.places[..]), (&[1, 3][..], &[None, Some(0), None, Some(1)][..]));
        assert_eq!(
            chosen.choices,
            ["Taking the 2 features of the type \"CRISPR Guide Capture\" as guides; 2 of other types are left out."]
        );
        assert_eq!(of(&types, Some("custom")).unwrap().kept, [2]);
        let text = |types: &[&str], wanted| of(types, wanted).err().unwrap().to_string();
        assert!(text(&["Custom", "Peaks"], None).contains("\"Custom\" (1), \"Peaks\" (1)"));
        assert!(text(&["sgRNA", "CRISPR Guide Capture"], None).contains("\"sgRNA\", \"CRISPR Guide Capture\""));
        assert!(text(&["sgRNA"], Some("Custom")).contains("no features of the type \"Custom\""));
        let all = of(&["sgRNA", "sgRNA"], None).unwrap();
        assert!(all.is_all() && all.choices.is_empty());
    }

    #[test]
    fn genes_are_no_guides() {
        let text = |names: &[&str]| take(None, names, None, None).err().unwrap().to_string();
        assert!(
            text(&["ENSG00000141510.3", "GRCh38_ENSG00000141511", "g1"]).contains("2 of 3 features have Ensembl ids")
        );
        assert!(text(&["FBgn0000008", "WBGene00000001"]).contains("2 of 2 features"));
        assert!(take(None, &["ENSG00000141510_1", "ENSG00000141510_2"], None, None).unwrap().is_all());
        assert!(take(None, &["a"], Some("Custom"), None).is_err());
        // Symbols, with the ids beside them.
        let (names, ids) = (texts(&["TP53", "KLF1"]), texts(&["ENSG00000141510", "ENSG00000105610"]));
        assert!(choose(SOURCE(), Described { names: &names, also: &[ids], types: None }, None, None).is_err());
        // A transcriptome has what every cell expresses; a large library of guides has not.
        let mut many: Vec<String> = (0..2000).map(|i| format!("GENE{i}")).collect();
        assert!(are_genes(&many, &[]).is_none());
        many.extend(texts(&["mt-Nd1", "mt-Nd2", "mt-Nd4", "mt-Co1", "mt-Co2", "mt-Cytb", "Actb", "Gapdh", "B2m"]));
        assert!(are_genes(&many, &[]).unwrap().contains("2009 features with the symbols of genes such as \"MT-ND1\""));
        // Symbols of their own; guides with numbers, controls, or spacers for names.
        let letters = |mut i: usize| {
            let mut text = String::new();
            while text.len() < 4 {
                text.push(char::from(b'A' + (i % 26) as u8));
                i /= 26;
            }
            text
        };
        let named = |name: &dyn Fn(usize) -> String| (0..1500).map(name).collect::<Vec<String>>();
        let symbols = named(&|i| format!("{}{}", letters(i), i % 7));
        assert!(are_genes(&symbols, &[]).unwrap().contains("1500 features with the symbols of genes"));
        assert!(are_genes(&[symbols, texts(&["non-targeting_1"])].concat(), &[]).is_none());
        assert!(are_genes(&named(&|i| format!("{}-{}", letters(i / 3), i % 3)), &[]).is_none());
        assert!(are_genes(&named(&|i| format!("sg{}", letters(i))), &[]).is_none());
        let spacer = |i: usize| (0..20).map(|at| ['A', 'C', 'G', 'T'][(i >> (at % 12)) & 3]).collect::<String>();
        assert!(are_genes(&named(&spacer), &[]).is_none());
    }

    #[test]
    fn the_guide_table_finds_guides_among_genes() {
        let names = ["ENSG00000141510", "ENSG00000105610", "sgKLF1", "ENSG00000000003"];
        let chosen = take(None, &names, None, Some(&["sgKLF1", "sgMYB"])).unwrap();
        assert_eq!(chosen.kept, [2]);
        assert_eq!(
            chosen.choices,
            ["Taking the 1 features that are in the guide table as guides; 3 others are left out."]
        );
        assert!(take(None, &names, None, Some(&["other"])).is_err());
        // STARsolo says "Gene Expression" of all.
        let types = ["Gene Expression"; 4];
        assert_eq!(take(Some(&types), &names, None, Some(&["sgKLF1"])).unwrap().kept, [2]);
        assert!(take(Some(&types), &names, None, None).is_err());
    }

    #[test]
    fn what_is_left_over_is_no_guide() {
        let chosen = take(None, &["sgKLF1", "unmapped", "__no_feature", "sgMYB"], None, None).unwrap();
        assert_eq!((&chosen.kept[..], chosen.places[3]), (&[0, 3][..], Some(1)));
        assert_eq!(chosen.choices, ["Leaving out \"unmapped\", \"__no_feature\": they are no guide."]);
        for name in ["UNASSIGNED", "no_match", "nomatch", "__ambiguous", "bad_struct"] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["non-targeting", "control", "negative", "sgNT_1", "no_target", "unmappedGene1"] {
            assert!(!is_leftover(name), "{name}");
        }
    }

    #[test]
    fn barcodes_are_known() {
        for names in [
            &["AAACTTGACCGT", "AAACTTGACCGA"][..],
            &["AAACTTGACCGT-1", "AAACTTGACCGA-2", "AAACTTGACCGC-1", "AAACTTGACCGG-2"],
            &["S1_AAACTTGACCGT-1", "S1_AAACTTGACCGA-1"],
            &["01_01_01__s1", "01_02_08__s1"],
        ] {
            assert!(are_barcodes(&texts(names)), "{names:?}");
        }
        for names in [
            &["sgKLF1_1", "sgKLF1_2"][..],
            &["sgKLF1_1-AACTCGATGGTGATGGAGTG", "sgKLF1_2-ACAGGTGAATGTTCGAAGAG"],
            &["cell_1", "cell_2"],
            // Spacers.
            &["AACTCGATGGTGATGGAGTG", "ACAGGTGAATGTTCGAAGAG"],
            &[],
        ] {
            assert!(!are_barcodes(&texts(names)), "{names:?}");
        }
    }

    #[test]
    fn names_are_there_and_unique() {
        let text =
            |names: &[&str]| check_names(SOURCE(), &texts(names), "guide", "features").err().unwrap().to_string();
        assert!(text(&[]).contains("names no guides"));
        assert!(text(&["a", ""]).contains("guide 2 has no name"));
        assert!(text(&["a", "b", "a"]).contains("\"a\" stands more than once in features (entries 1 and 3)"));
        assert_eq!(check_names(SOURCE(), &texts(&["a", "b"]), "guide", "features"), Ok(()));
    }
}
