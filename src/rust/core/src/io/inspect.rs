//! What a file is, for those who have it and not its story.
use std::path::Path;

use hdf5::{Group, LocationType};

use super::h5ad::quiet::quietly;
use super::h5ad::values::{attribute, attributes, encoding, single_text, Source, Values};
use super::h5ad::{check_signature, open_hdf5};
use super::samples::{self, Found};
use super::{foreign, kind_without_hdf5, mtx, Kind};
use crate::Result;

/// Labels and what stands behind them, indented by the depth of the object they are of.
pub type Facts = Vec<(usize, String, String)>;

/// Looks at an HDF5 file (an .h5ad, an .h5mu, or one of 10x Genomics), or at a Matrix Market file or its folder.
pub fn inspect(path: &Path) -> Result<Facts> {
    match samples::find(path)? {
        Found::One(path, _) => inspect_one(&path),
        Found::Several(inputs) => {
            let mut facts = vec![(0, "kind".to_owned(), format!("{} samples, read as one screen", inputs.len()))];
            for input in inputs {
                facts.push((0, "sample".to_owned(), format!("{} ({})", input.sample, input.path.display())));
                facts
                    .extend(inspect_one(&input.path)?.into_iter().map(|(depth, label, text)| (depth + 1, label, text)));
            }
            Ok(facts)
        }
    }
}

fn inspect_one(path: &Path) -> Result<Facts> {
    let source = Source(path);
    match kind_without_hdf5(source)? {
        Some(Kind::Table) => return table(path),
        Some(_) => return mtx::inspect(path),
        None => {}
    }
    check_signature(source)?;
    quietly(|| {
        let file = open_hdf5(source)?;
        let mut facts = Facts::new();
        let mut say = |label: &str, text: String| facts.push((0, label.to_owned(), text));
        let size = std::fs::metadata(path).map_or(0, |data| data.len());
        let has = |name: &str| file.link_exists(name);
        let kind = if has("mod") {
            "MuData (.h5mu)"
        } else if has("obs") && has("var") {
            "AnnData (.h5ad)"
        } else if let Some(text) = foreign::hdf5(&file, path) {
            return Err(source.file(text));
        } else if has("matrix") {
            "counts of 10x Genomics (.h5)"
        } else if has("barcode_idx") && has("umi") {
            "molecule_info.h5 of Cell Ranger"
        } else {
            "HDF5 of another kind"
        };
        say("kind", kind.to_owned());
        say("size", bytes(size));
        if has("mod") {
            let modalities = file.group("mod").map_err(|error| source.damaged("mod", error))?;
            for name in modalities.member_names().unwrap_or_default() {
                facts.push((0, "modality".into(), name.clone()));
                if let Ok(group) = modalities.group(&name) {
                    anndata(source, &group, 1, &mut facts)?;
                }
            }
        } else if has("obs") && has("var") {
            anndata(source, &file, 0, &mut facts)?;
        } else if has("matrix") {
            let matrix = file.group("matrix").map_err(|error| source.damaged("matrix", error))?;
            tenx(source, &matrix, &mut facts)?;
        } else {
            facts.push((0, "members".into(), file.member_names().unwrap_or_default().join(", ")));
        }
        Ok(facts)
    })
}

/// A table is read: what it is, is told by all of it.
fn table(path: &Path) -> Result<Facts> {
    let file = super::table::read(path, &super::ReadOptions::default())?;
    let mut facts = Facts::new();
    let mut say = |label: &str, text: String| facts.push((0, label.to_owned(), text));
    say("kind", "a table of counts".to_owned());
    say("size", bytes(std::fs::metadata(path).map_or(0, |data| data.len())));
    file.choices.iter().for_each(|choice| say("read as", choice.clone()));
    say("cells", file.cell_names.len().to_string());
    say("guides", file.guide_names.len().to_string());
    let mut range = Range::default();
    file.counts.iter().for_each(|&count| range.add(count));
    say("matrix", format!("{} above 0, {}", range.n, range.words()));
    Ok(facts)
}

fn anndata(source: Source, group: &Group, depth: usize, facts: &mut Facts) -> Result<()> {
    let mut say = |label: &str, text: String| facts.push((depth, label.to_owned(), text));
    let index_of = |name: &str| -> Option<(usize, Group)> {
        let table = group.group(name).ok()?;
        let index = attribute(&table, "_index").unwrap_or_else(|| "_index".into());
        let index =
            table.dataset(&index).or_else(|_| table.group(&index).and_then(|group| group.dataset("values"))).ok()?;
        Some((index.shape().first().copied()?, table))
    };
    for (name, what) in [("obs", "cells"), ("var", "features")] {
        if let Some((n, table)) = index_of(name) {
            say(what, n.to_string());
            let columns = attributes(&table, "column-order");
            if !columns.is_empty() {
                say(&format!("columns of {name}"), columns.join(", "));
            }
            if name == "var" && table.link_exists("feature_types") {
                if let Some(types) = categories(source, &table, "feature_types")? {
                    say("feature types", types);
                }
            }
        }
    }
    let layers = group.group("layers").and_then(|layers| layers.member_names()).unwrap_or_default();
    let paths = layers.iter().map(|layer| format!("layers/{layer}"));
    for path in ["X".to_owned()].into_iter().chain(paths).chain(["raw/X".to_owned()]) {
        if group.link_exists(&path) {
            say(&path, matrix(source, group, &path)?);
        }
    }
    if let Ok(ours) = group.group("uns").and_then(|uns| uns.group("kaichi")) {
        for name in ["model", "stage", "version"] {
            if let Some(text) = single_text(&ours, name) {
                say(&format!("kaichi {name}"), text);
            }
        }
    }
    Ok(())
}

fn matrix(source: Source, group: &Group, path: &str) -> Result<String> {
    let (kind, values) = match group.loc_type_by_name(path) {
        Ok(LocationType::Group) => {
            let group = group.group(path).map_err(|error| source.damaged(path, error))?;
            let kind = encoding(&group).map_or_else(|| "sparse".to_owned(), |encoding| encoding.kind);
            (kind, Values::open(source, &group, path, "data")?)
        }
        _ => ("dense".to_owned(), Values::open(source, group, "", path)?),
    };
    let Ok(number) = values.number() else { return Ok(format!("{kind}, no numbers")) };
    let mut range = Range::default();
    if values.shape.len() == 1 {
        values.numbers(|_, value| {
            range.add(value);
            Ok(())
        })?;
    } else if values.shape.len() == 2 {
        values.each_in_matrix(|_, _, value| {
            range.add(value);
            Ok(())
        })?;
    }
    let dtype = format!("{number:?}").to_lowercase();
    Ok(format!("{kind} of {dtype}, {} stored, {}", range.n, range.words()))
}

/// What values there are.
#[derive(Default)]
pub(super) struct Range {
    pub n: usize,
    ends: Option<(f64, f64)>,
    fractions: bool,
}

impl Range {
    pub fn add(&mut self, value: f64) {
        self.n += 1;
        self.fractions |= value.fract() != 0.0;
        let (low, high) = self.ends.unwrap_or((value, value));
        self.ends = Some((low.min(value), high.max(value)));
    }

    pub fn words(&self) -> String {
        let Some((low, high)) = self.ends else { return "nothing".to_owned() };
        let kind = match (self.fractions, low < 0.0) {
            (false, false) => "counts",
            (true, _) => "no counts: fractions",
            (false, true) => "no counts: negative numbers",
        };
        format!("{low} to {high} ({kind})")
    }
}

fn tenx(source: Source, matrix: &Group, facts: &mut Facts) -> Result<()> {
    let shape = Values::open(source, matrix, "matrix", "shape")?.integers(|_, n| Ok(n as usize))?;
    if let [features, cells] = shape[..] {
        facts.push((0, "cells".into(), cells.to_string()));
        facts.push((0, "features".into(), features.to_string()));
    }
    if let Ok(features) = matrix.group("features") {
        if let Some(types) = categories(source, &features, "feature_type")? {
            facts.push((0, "feature types".into(), types));
        }
    }
    let values = Values::open(source, matrix, "matrix", "data")?;
    let mut range = Range::default();
    values.numbers(|_, value| {
        range.add(value);
        Ok(())
    })?;
    facts.push((0, "matrix".into(), format!("{} stored, {}", range.n, range.words())));
    Ok(())
}

/// The values of a column of text, with how often each stands.
fn categories(source: Source, table: &Group, name: &str) -> Result<Option<String>> {
    if let Ok(group) = table.group(name) {
        if !group.link_exists("categories") {
            return Ok(None);
        }
        let levels = Values::open(source, &group, name, "categories")?.strings()?;
        let codes = Values::open(source, &group, name, "codes")?.integers(|_, code| Ok(code as usize))?;
        return Ok(Some(counted(codes.into_iter().filter_map(|code| levels.get(code).cloned()))));
    }
    Values::open(source, table, "", name)?.strings().map(|values| Some(counted(values)))
}

/// Values, with how often each stands.
pub(super) fn counted(values: impl IntoIterator<Item = String>) -> String {
    let mut n: std::collections::BTreeMap<String, usize> = Default::default();
    values.into_iter().for_each(|value| *n.entry(value).or_default() += 1);
    n.iter().map(|(value, n)| format!("{value} ({n})")).collect::<Vec<_>>().join(", ")
}

pub(super) fn bytes(n: u64) -> String {
    let mut size = n as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size < 1000.0 {
            return if unit == "bytes" { format!("{n} bytes") } else { format!("{size:.1} {unit}") };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_not_followed() {
        let path = std::env::temp_dir().join(format!("kaichi-{}-inspect.h5ad", std::process::id()));
        let other = path.with_extension("other.h5");
        quietly(|| {
            let file = hdf5::File::create(&other).unwrap();
            file.new_dataset_builder().with_data(&[1.0, 2.0]).create("X").unwrap();
            let file = hdf5::File::create(&path).unwrap();
            file.create_group("obs").unwrap();
            file.create_group("var").unwrap();
            file.link_external(&other.to_string_lossy(), "/X", "X").unwrap();
        });
        let error = inspect(&path).err().unwrap().to_string();
        assert!(error.contains("X is a link to another file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&other).unwrap();
    }
}
