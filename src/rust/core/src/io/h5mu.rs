//! .h5mu (MuData). Reader: the AnnData of the modality with the guides. Writer: calls as the modality `guide`, beside the
//! modalities of another file.
//!
//! Layout as written by mudata 0.2 and 0.3: the AnnData of each modality in `mod`, tables of all cells and all features, and
//! where each of those is in each modality (`obsmap`, `varmap`: places from 1, 0 for absent; `obsm`, `varm`: whether it is there).
use std::collections::HashMap;
use std::path::Path;

use hdf5::{Group, H5Type};
use ndarray::Array2;

use super::features::is_guide_name;
use super::h5ad::frame::Frame;
use super::h5ad::quiet::quietly;
use super::h5ad::values::{attributes, quoted, Source};
use super::h5ad::write::{self, encode, set_text, set_texts, Content, Draft, Index, INDEX};
use super::h5ad::{check_signature, open_hdf5, read_anndata, unchanged};
use super::{GuideFile, ReadOptions};
use crate::Result;

/// The modality of the calls.
const GUIDE: &str = "guide";

/// A modality that is copied.
struct Modality {
    name: String,
    /// Its path in the file.
    path: String,
    cells: Vec<String>,
    features: Vec<String>,
}

/// Writes an .h5mu. `others` is an .h5ad, which becomes the modality `rna`, or an .h5mu, whose modalities are copied except for
/// one named `guide`.
pub fn write(path: &Path, overwrite: bool, others: Option<&Path>, content: Content) -> Result<()> {
    if let Some(others) = others {
        check_signature(Source(others))?;
    }
    let draft = Draft::new(path, others, overwrite)?;
    let version = content.notes.iter().find_map(|(name, note)| match note {
        write::Note::Text(text) if name == "version" => Some(text.clone()),
        _ => None,
    });
    let version = version.unwrap_or_default();
    let written = || {
        let input = others.map(|path| open(Source(path))).transpose()?;
        let others = others.map(Source).zip(input.as_ref());
        let modalities = others.map_or(Ok(vec![]), |(source, file)| modalities(source, file))?;
        let file = draft.open(512)?;
        // The tables of all cells and features name each once more, with its place in each modality.
        let copied = others.map_or(0, |(source, _)| write::file_size(source.0));
        let names = modalities.iter().map(|one| one.cells.len() + one.features.len()).sum::<usize>() as u64;
        let places = (names + (content.cells.len() + content.guides.len()) as u64) * 5 * (modalities.len() as u64 + 1);
        draft.reserve(&file, 2 * content.size() + 2 * copied + places)?;
        write_open(&file, others, &modalities, &version, content, &draft)?;
        draft.close(file)
    };
    match others {
        Some(others) => unchanged(Source(others), || quietly(written))?,
        None => quietly(written)?,
    }
    // By this mudata tells its files from other HDF5.
    draft.write_head(&format!("MuData (format-version=0.1.0;creator=kaichi;creator-version={version})"))?;
    draft.finish()
}

/// Reads the guides of the modality asked for, or of the one that is named for guides.
pub fn read(path: &Path, options: &ReadOptions) -> Result<GuideFile> {
    let source = Source(path);
    quietly(|| {
        let file = open_hdf5(source)?;
        let all = file.group("mod").map_err(|error| source.damaged("mod", error))?;
        let names = all.member_names().map_err(|error| source.damaged("mod", error))?;
        let (name, choice) = choose(source, &names, options.modality)?;
        let group = all.group(name).map_err(|error| source.damaged(name, error))?;
        let mut guides = read_anndata(source, &group, options)?;
        guides.choices.splice(0..0, choice);
        Ok(guides)
    })
}

fn choose<'a>(source: Source, names: &'a [String], wanted: Option<&str>) -> Result<(&'a str, Option<String>)> {
    if let Some(wanted) = wanted {
        return match names.iter().find(|name| *name == wanted) {
            Some(name) => Ok((name, None)),
            None => Err(source.format(format!("has no modality \"{wanted}\". Its modalities: {}.", quoted(names)))),
        };
    }
    let guides: Vec<&String> = names.iter().filter(|name| is_guide_name(name)).collect();
    match guides[..] {
        [name] => Ok((name, Some(format!("Taking the modality \"{name}\" as guides.")))),
        [] => Err(source.format(format!(
            "has no modality that is named for guides.\n  Give one as `modality`: {}.",
            quoted(names)
        ))),
        _ => Err(source.format(format!(
            "has several modalities that are named for guides.\n  Give one as `modality`: {}.",
            quoted(&guides)
        ))),
    }
}

fn open(source: Source) -> Result<hdf5::File> {
    let file = open_hdf5(source)?;
    if file.link_exists("obs") && file.link_exists("var") {
        return Ok(file);
    }
    Err(source.file("is an HDF5 file without obs and var. Give an .h5ad or .h5mu."))
}

fn modalities(source: Source, file: &hdf5::File) -> Result<Vec<Modality>> {
    let read = |name: &str, path: &str| {
        let group = file.group(path).map_err(|error| source.damaged(path, error))?;
        let cells = Frame::open(source, &group, "obs", "cell")?.index()?;
        let features = Frame::open(source, &group, "var", "feature")?.names()?;
        Ok(Modality { name: name.to_owned(), path: path.to_owned(), cells, features })
    };
    let Ok(all) = file.group("mod") else { return Ok(vec![read("rna", "/")?]) };
    let mut names = attributes(&all, "mod-order");
    if names.is_empty() {
        names = all.member_names().map_err(|error| source.damaged("mod", error))?;
    }
    names.iter().filter(|name| *name != GUIDE).map(|name| read(name, &format!("mod/{name}"))).collect()
}

fn write_open(
    root: &Group,
    others: Option<(Source, &hdf5::File)>,
    modalities: &[Modality],
    version: &str,
    content: Content,
    draft: &Draft,
) -> Result<()> {
    let failed = |error| draft.failed(error);
    let of_cells = || modalities.iter().map(|one| &one.cells[..]).chain([content.cells]);
    let of_features = || modalities.iter().map(|one| &one.features[..]).chain([content.guides]);
    let names: Vec<&str> = modalities.iter().map(|one| one.name.as_str()).chain([GUIDE]).collect();

    // All cells, in the order in which the modalities have them.
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut cells: Vec<String> = vec![];
    for cell in of_cells().flatten() {
        places.entry(cell).or_insert_with(|| {
            cells.push(cell.clone());
            cells.len() - 1
        });
    }
    let features: Vec<String> = of_features().flatten().cloned().collect();
    let mut first = 0;
    let (mut cell_maps, mut feature_maps) = (vec![], vec![]);
    for (own_cells, own_features) in of_cells().zip(of_features()) {
        let mut map = vec![0u32; cells.len()];
        for (cell, place) in own_cells.iter().zip(1..) {
            if let Some(&at) = places.get(cell.as_str()) {
                map[at] = place;
            }
        }
        cell_maps.push(map);
        let mut map = vec![0u32; features.len()];
        map[first..].iter_mut().zip(1..=own_features.len() as u32).for_each(|(at, place)| *at = place);
        first += own_features.len();
        feature_maps.push(map);
    }

    // What is said of all cells still holds where they are the same.
    let kept = others.filter(|(_, file)| file.link_exists("mod"));
    let kept = kept.map(|(source, file)| Frame::open(source, file, "obs", "cell")).transpose()?;
    let same = kept.as_ref().is_some_and(|frame| frame.names().is_ok_and(|names| names == cells));
    let kept = kept.as_ref().filter(|_| same);

    let head = || -> hdf5::Result<Group> {
        encode(root, "MuData", "0.1.0")?;
        set_text(root, "encoder", "kaichi")?;
        set_text(root, "encoder-version", version)?;
        root.new_attr::<i64>().create("axis")?.write_scalar(&0)?;
        for name in ["obsp", "varp"] {
            write::dict(root, name)?;
        }
        maps(root, ["obsmap", "obsm"], &names, cell_maps)?;
        maps(root, ["varmap", "varm"], &names, feature_maps)?;
        write::whole_table(root, "obs", Index::Names(INDEX, &cells), cells.len(), kept, vec![])?;
        write::whole_table(root, "var", Index::Names(INDEX, &features), features.len(), None, vec![])?;
        match others {
            Some((_, file)) if file.link_exists("mod") && file.link_exists("uns") => {
                write::copy(file, "uns", root, "uns")?;
            }
            _ => drop(write::dict(root, "uns")?),
        }
        let all = root.create_group("mod")?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        set_texts(&all, "mod-order", &names)?;
        Ok(all)
    };
    let all = head().map_err(failed)?;
    if let Some((_, file)) = others {
        for one in modalities {
            write::copy(file, &one.path, &all, &one.name).map_err(failed)?;
        }
    }
    let guide = all.create_group(GUIDE).map_err(failed)?;
    write::write_anndata(&guide, None, None, content).map_err(failed)
}

/// A column of each modality: where each row is in it, and whether it is.
fn maps(root: &Group, names: [&str; 2], modalities: &[&str], places: Vec<Vec<u32>>) -> hdf5::Result<()> {
    fn column<T: H5Type>(parent: &Group, name: &str, values: Vec<T>) -> hdf5::Result<()> {
        let values = Array2::from_shape_vec((values.len(), 1), values)?;
        let dataset = parent.new_dataset_builder().with_data(&values).create(name)?;
        encode(&dataset, "array", "0.2.0")
    }
    let (maps, masks) = (write::dict(root, names[0])?, write::dict(root, names[1])?);
    for (name, places) in modalities.iter().zip(places) {
        column(&masks, name, places.iter().map(|&place| place > 0).collect())?;
        column(&maps, name, places)?;
    }
    Ok(())
}
