//! Which features of a file are guides, told by their type; and what files call the modality of the guides.
use super::h5ad::frame::first_twice;
use super::h5ad::values::{quoted, Source};
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

/// The guides among the features of a file.
pub struct Chosen {
    /// Of each feature, its place among the guides, if it is one.
    pub places: Vec<Option<i32>>,
    /// The features that are guides.
    pub kept: Vec<usize>,
    /// What is to be said of it.
    pub choice: Option<String>,
}

impl Chosen {
    fn new(is_guide: impl Iterator<Item = bool>) -> Self {
        let mut chosen = Chosen { places: vec![], kept: vec![], choice: None };
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

/// The features whose type is `wanted`, or without that the one type that speaks of guides.
pub fn choose(source: Source, types: &[String], wanted: Option<&str>) -> Result<Chosen> {
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
        chosen.choice = Some(format!(
            "Taking the {n} features of the type \"{taken}\" as guides; {others} of other types are left out."
        ));
    }
    Ok(chosen)
}

/// All features, where the file does not say their types: refused if most look like genes.
pub fn take_all(source: Source, names: &[String], wanted: Option<&str>) -> Result<Chosen> {
    if let Some(wanted) = wanted {
        return Err(source.format(format!(
            "does not say the types of its features, so none has the type \"{wanted}\". Leave `feature_type` out."
        )));
    }
    let genes = names.iter().filter(|name| is_ensembl_gene(name)).count();
    if 2 * genes > names.len() {
        return Err(source.format(format!(
            "names genes, not guides: {genes} of {} features are Ensembl ids, and no types are said.\n  Give the counts of the \
             guides.",
            names.len()
        )));
    }
    Ok(Chosen::new(names.iter().map(|_| true)))
}

/// ENSG00000141510, ENSMUSG00000059552.4.
fn is_ensembl_gene(name: &str) -> bool {
    let id = name.split('.').next().unwrap_or(name);
    let Some(rest) = id.strip_prefix("ENS") else { return false };
    let number = rest.trim_start_matches(|c: char| c.is_ascii_uppercase());
    rest[..rest.len() - number.len()].ends_with('G') && number.len() == 11 && number.bytes().all(|b| b.is_ascii_digit())
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

    #[test]
    fn the_type_is_found_or_asked_for() {
        let types = texts(&["Gene Expression", "CRISPR Guide Capture", "Custom", "CRISPR Guide Capture"]);
        let chosen = choose(SOURCE(), &types, None).unwrap();
        assert_eq!((&chosen.kept[..], &chosen.places[..]), (&[1, 3][..], &[None, Some(0), None, Some(1)][..]));
        assert_eq!(
            chosen.choice.unwrap(),
            "Taking the 2 features of the type \"CRISPR Guide Capture\" as guides; 2 of other types are left out."
        );
        assert_eq!(choose(SOURCE(), &types, Some("custom")).unwrap().kept, [2]);
        let text = |types: &[&str], wanted| choose(SOURCE(), &texts(types), wanted).err().unwrap().to_string();
        assert!(text(&["Custom", "Peaks"], None).contains("\"Custom\" (1), \"Peaks\" (1)"));
        assert!(text(&["sgRNA", "CRISPR Guide Capture"], None).contains("\"sgRNA\", \"CRISPR Guide Capture\""));
        assert!(text(&["sgRNA"], Some("Custom")).contains("no features of the type \"Custom\""));
        let all = choose(SOURCE(), &texts(&["sgRNA", "sgRNA"]), None).unwrap();
        assert!(all.is_all() && all.choice.is_none());
    }

    #[test]
    fn genes_are_no_guides() {
        let text = take_all(SOURCE(), &texts(&["ENSG00000141510.3", "ENSMUSG00000059552", "g1"]), None);
        assert!(text.err().unwrap().to_string().contains("2 of 3 features are Ensembl ids"));
        assert!(take_all(SOURCE(), &texts(&["ENSG00000141510_1", "ENSG00000141510_2"]), None).unwrap().is_all());
        assert!(take_all(SOURCE(), &texts(&["a"]), Some("Custom")).is_err());
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
