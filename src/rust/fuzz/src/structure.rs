//! Valid HDF5 that is nearly a file of some format: most parts are right, some are of another length, type or order, missing, in a
//! circle, in another file, or of a size that nothing stands for.
use std::path::Path;

use hdf5::types::{FixedAscii, VarLenUnicode};
use hdf5::{Group, H5Type, Location, Result};

use crate::random::Random;

/// One part in so many is wrong.
const ODDS: usize = 24;

pub fn h5ad(random: &mut Random, path: &Path) -> Result<()> {
    anndata(random, &*hdf5::File::create(path)?)
}

fn anndata(random: &mut Random, file: &Group) -> Result<()> {
    let (cells, guides) = (random.below(20), random.below(6));
    frame(random, file, "obs", cells)?;
    frame(random, file, "var", guides)?;
    if random.one_in(3) {
        column(random, &file.group("obs")?, "lane", cells)?;
    }
    if random.one_in(3) {
        let var = file.group("var")?;
        let types = feature_types(random, guides);
        texts(random, &var, "feature_types", &types)?;
        column(random, &var, "target", guides)?;
    }
    let matrix = if random.one_in(4) { dense } else { sparse };
    matrix(random, file, "X", cells, guides)?;
    if random.one_in(ODDS) {
        odd_object(random, file, "X")?;
    }
    forget(random, file, &["obs", "var", "X"])
}

pub fn h5mu(random: &mut Random, path: &Path) -> Result<()> {
    let file = hdf5::File::create(path)?;
    let all = file.create_group("mod")?;
    let names = ["guide", "rna", "crispr", "GDO"];
    for name in &names[..1 + random.below(2) + random.below(ODDS) / (ODDS - 2)] {
        if random.one_in(ODDS) {
            odd_object(random, &all, name)?;
        } else {
            anndata(random, &all.create_group(name)?)?;
        }
    }
    if random.one_in(ODDS) {
        all.link_hard("/", "sgRNA")?;
    }
    forget(random, &all, &["guide"])
}

pub fn tenx(random: &mut Random, path: &Path) -> Result<()> {
    let file = hdf5::File::create(path)?;
    let (cells, guides) = (1 + random.below(20), 1 + random.below(6));
    let group = file.create_group("matrix")?;
    column(random, &group, "barcodes", cells)?;
    features(random, &group, guides)?;
    compressed(random, &group, cells, guides)?;
    let shape = [length(random, guides) as i64, length(random, cells) as i64];
    numbers(random, &group, "shape", &shape)?;
    forget(random, &group, &["barcodes", "features", "shape"])
}

pub fn molecules(random: &mut Random, path: &Path) -> Result<()> {
    let file = hdf5::File::create(path)?;
    let (barcodes, guides, rows) = (1 + random.below(10), 1 + random.below(6), random.below(60));
    column(random, &file, "barcodes", barcodes)?;
    features(random, &file, guides)?;
    for (name, most) in [("barcode_idx", barcodes), ("feature_idx", guides), ("library_idx", 2)] {
        let values: Vec<i64> = (0..rows).map(|_| random.below(most) as i64).collect();
        numbers(random, &file, name, &values)?;
    }
    numbers(random, &file, "gem_group", &vec![1; rows])?;
    if random.one_in(2) {
        let info = file.create_group("barcode_info")?;
        match random.below(ODDS) {
            0 => odd_object(random, &info, "pass_filter")?,
            1 => column(random, &info, "pass_filter", barcodes)?,
            2 => {
                drop(info.new_dataset::<u64>().chunk((1 << 10, 3)).shape((1usize << 40.., 3..)).create("pass_filter")?)
            }
            _ => {
                let columns = if random.one_in(ODDS) { 2 } else { 3 };
                let values: Vec<u64> = (0..length(random, barcodes) * columns)
                    .map(|at| match (at % columns, random.below(4 * ODDS)) {
                        (_, 0) => u64::MAX,
                        (0, _) => (at / columns) as u64,
                        _ => 0,
                    })
                    .collect();
                let passed =
                    info.new_dataset::<u64>().shape((values.len() / columns, columns)).create("pass_filter")?;
                passed.write_raw(&values)?;
            }
        }
    }
    forget(random, &file, &["barcodes", "features", "barcode_idx", "library_idx"])
}

fn features(random: &mut Random, parent: &Group, n: usize) -> Result<()> {
    let group = parent.create_group("features")?;
    column(random, &group, "id", n)?;
    let types = feature_types(random, n);
    texts(random, &group, "feature_type", &types)?;
    for name in ["target_gene_name", "sequence"] {
        if random.one_in(2) {
            column(random, &group, name, n)?;
        }
    }
    forget(random, &group, &["id", "feature_type"])
}

fn feature_types(random: &mut Random, n: usize) -> Vec<String> {
    let genes = random.one_in(2);
    (0..length(random, n))
        .map(|_| match random.below(4 * ODDS) {
            0 => "sgRNA",
            1 => "",
            at if genes && at % 2 == 0 => "Gene Expression",
            _ => "CRISPR Guide Capture",
        })
        .map(str::to_owned)
        .collect()
}

/// Takes one away now and then.
fn forget(random: &mut Random, parent: &Group, names: &[&str]) -> Result<()> {
    for name in names {
        if random.one_in(4 * ODDS) && parent.link_exists(name) {
            parent.unlink(name)?;
        }
    }
    Ok(())
}

fn text(value: &str) -> VarLenUnicode {
    value.parse().unwrap_or_default()
}

fn attribute(random: &mut Random, object: &Location, name: &str, value: &str) -> Result<()> {
    match random.below(3 * ODDS) {
        0 => Ok(()),
        1 => object.new_attr::<i32>().create(name)?.write_scalar(&7),
        2 => object.new_attr_builder().with_data(&[0.5, f64::NAN]).create(name).map(drop),
        3 => {
            let other: &[&str] = &[
                "",
                "array",
                "dataframe",
                "csr_matrix",
                "csc_matrix",
                "categorical",
                "0.2.0",
                "_index",
                "/",
                ".",
                "lane",
            ];
            let other = *random.one_of(other);
            object.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text(other))
        }
        4 => object.new_attr_builder().with_data(&[text(value), text(value)]).create(name).map(drop),
        5 => object.new_attr_builder().with_data(&Vec::<VarLenUnicode>::new()).create(name).map(drop),
        _ => object.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text(value)),
    }
}

fn encode(random: &mut Random, object: &Location, kind: &str, version: &str) -> Result<()> {
    attribute(random, object, "encoding-type", kind)?;
    attribute(random, object, "encoding-version", version)
}

/// A length that is mostly right.
fn length(random: &mut Random, right: usize) -> usize {
    match random.below(2 * ODDS) {
        0 => 0,
        1 => right + 1,
        2 => right.saturating_sub(1),
        3 => right * 100,
        _ => right,
    }
}

fn frame(random: &mut Random, file: &Group, name: &str, rows: usize) -> Result<()> {
    let group = file.create_group(name)?;
    encode(random, &group, "dataframe", "0.2.0")?;
    attribute(random, &group, "_index", "_index")?;
    if random.one_in(2 * ODDS) {
        return odd_object(random, &group, "_index");
    }
    column(random, &group, "_index", rows)
}

fn column(random: &mut Random, parent: &Group, name: &str, rows: usize) -> Result<()> {
    let names: Vec<String> = (0..length(random, rows))
        .map(|row| match random.below(40 * ODDS) {
            0 => String::new(),
            1 => "name 0".to_owned(),
            2 => "é\n%s%n".to_owned(),
            _ => format!("name {row}"),
        })
        .collect();
    texts(random, parent, name, &names)
}

/// A vector of texts of any kind that holds them, and of some that do not.
fn texts(random: &mut Random, parent: &Group, name: &str, values: &[String]) -> Result<()> {
    let rows = values.len();
    let names: Vec<VarLenUnicode> = values.iter().map(|value| text(value)).collect();
    match random.below(8) {
        0 => {
            let group = parent.create_group(name)?;
            encode(random, &group, "categorical", "0.2.0")?;
            let codes = if random.one_in(2) { rows } else { 1 };
            let codes: Vec<i64> =
                (0..rows).map(|row| (row % codes.max(1)) as i64 - i64::from(random.one_in(4 * ODDS))).collect();
            numbers(random, &group, "codes", &codes)?;
            if random.one_in(ODDS) {
                return odd_object(random, &group, "categories");
            }
            let categories = group.new_dataset_builder().with_data(&names).create("categories")?;
            encode(random, &categories, "string-array", "0.2.0")
        }
        1 => {
            let kind = *random.one_of(&["nullable-integer", "nullable-boolean", "nullable-string-array"]);
            let group = parent.create_group(name)?;
            encode(random, &group, kind, "0.1.0")?;
            match kind {
                "nullable-string-array" => group.new_dataset_builder().with_data(&names).create("values").map(drop)?,
                _ => numbers(random, &group, "values", &(0..rows as i64).collect::<Vec<_>>())?,
            }
            let mask: Vec<bool> = (0..length(random, rows)).map(|_| random.one_in(ODDS)).collect();
            group.new_dataset_builder().with_data(&mask).create("mask").map(drop)
        }
        2 => numbers(random, parent, name, &(0..rows as i64).collect::<Vec<_>>()),
        3 => {
            let names: Vec<FixedAscii<24>> =
                names.iter().map(|name| FixedAscii::from_ascii(name.as_bytes()).unwrap_or_default()).collect();
            parent.new_dataset_builder().with_data(&names).create(name).map(drop)
        }
        4 if random.one_in(4) => {
            let many = *random.one_of(&[1usize << 20, 1 << 28, i32::MAX as usize, 1 << 40]);
            let claimed = parent.new_dataset::<VarLenUnicode>().chunk(1 << 10).shape(many..).create(name)?;
            encode(random, &claimed, "string-array", "0.2.0")
        }
        _ => {
            let values = parent.new_dataset_builder().with_data(&names).create(name)?;
            encode(random, &values, "string-array", "0.2.0")
        }
    }
}

/// Something else than was expected there.
fn odd_object(random: &mut Random, parent: &Group, name: &str) -> Result<()> {
    if parent.link_exists(name) {
        parent.unlink(name)?;
    }
    match random.below(8) {
        0 => parent.link_soft(name, name),
        1 => parent.link_soft("/nowhere", name),
        2 => parent.link_hard("/", name),
        3 => parent.link_hard(".", name),
        4 => parent.link_external("other.h5ad", "/X", name),
        5 => parent.new_dataset::<f64>().create(name).map(drop),
        6 => parent.new_dataset::<i32>().shape((2, 2)).create(name).map(drop),
        _ => parent.create_group(name).map(drop),
    }
}

/// A vector of numbers of any type, filters and chunks.
fn numbers(random: &mut Random, parent: &Group, name: &str, values: &[i64]) -> Result<()> {
    fn make<T: H5Type + Clone>(random: &mut Random, parent: &Group, name: &str, values: &[T]) -> Result<()> {
        let many = *random.one_of(&[1usize << 20, 1 << 28, i32::MAX as usize, 1 << 40]);
        let builder = parent.new_dataset_builder();
        let chunk = 1 + random.below(2 * values.len() + 1);
        match random.below(ODDS) {
            0 => parent.new_dataset::<T>().chunk(1 << 12).shape(many..).create(name).map(drop),
            1 => parent.new_dataset::<T>().deflate(4).chunk(1 << 12).shape(many..).create(name).map(drop),
            2..=5 if !values.is_empty() => builder.chunk(chunk).deflate(4).with_data(values).create(name).map(drop),
            6..=8 if !values.is_empty() => {
                builder.chunk(chunk).shuffle().deflate(4).with_data(values).create(name).map(drop)
            }
            9 if !values.is_empty() => builder.chunk(chunk).lzf().with_data(values).create(name).map(drop),
            10 if !values.is_empty() => builder.chunk(chunk).fletcher32().with_data(values).create(name).map(drop),
            _ => builder.with_data(values).create(name).map(drop),
        }
    }
    let mut values = values.to_vec();
    values.truncate(length(random, values.len()));
    if !values.is_empty() && random.one_in(ODDS) {
        let at = random.below(values.len());
        values[at] = *random.one_of(&[-1, 0, 1, 5, 127, 1 << 31, 1 << 40, i64::MAX, i64::MIN]);
    }
    match random.below(10) {
        0 => make(random, parent, name, &values.iter().map(|&value| value as i8).collect::<Vec<_>>()),
        1 => make(random, parent, name, &values.iter().map(|&value| value as u16).collect::<Vec<_>>()),
        2 => make(random, parent, name, &values.iter().map(|&value| value as u64).collect::<Vec<_>>()),
        3 => make(random, parent, name, &values),
        4 => make(random, parent, name, &values.iter().map(|&value| value as f32).collect::<Vec<_>>()),
        5 => {
            let mut values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
            if !values.is_empty() && random.one_in(4) {
                let at = random.below(values.len());
                values[at] = *random.one_of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5, 1e300, -0.0]);
            }
            make(random, parent, name, &values)
        }
        6 if random.one_in(4) => make(random, parent, name, &values.iter().map(|&value| value > 0).collect::<Vec<_>>()),
        _ => make(random, parent, name, &values.iter().map(|&value| value as i32).collect::<Vec<_>>()),
    }
}

fn sparse(random: &mut Random, file: &Group, name: &str, cells: usize, guides: usize) -> Result<()> {
    let group = file.create_group(name)?;
    let by_cell = random.one_in(2);
    encode(random, &group, if by_cell { "csr_matrix" } else { "csc_matrix" }, "0.1.0")?;
    let shape = [length(random, cells) as i64, length(random, guides) as i64];
    match random.below(2 * ODDS) {
        0 => attribute(random, &group, "shape", "12 x 5")?,
        1 => group.new_attr_builder().with_data(&[f64::NAN, -1.0]).create("shape").map(drop)?,
        2 => group.new_attr_builder().with_data(&[-1i64, i64::MAX, 3]).create("shape").map(drop)?,
        _ => group.new_attr_builder().with_data(&shape).create("shape").map(drop)?,
    }
    let (outer, inner) = if by_cell { (cells, guides) } else { (guides, cells) };
    compressed(random, &group, outer, inner)
}

/// `data`, `indices` and `indptr`.
fn compressed(random: &mut Random, group: &Group, outer: usize, inner: usize) -> Result<()> {
    let (mut starts, mut indices, mut data) = (vec![0i64], vec![], vec![]);
    for _ in 0..outer {
        for index in 0..inner {
            if random.one_in(3) {
                indices.push(index as i64);
                data.push(1 + random.below(30) as i64);
            }
        }
        starts.push(indices.len() as i64);
    }
    if starts.len() > 2 && random.one_in(ODDS) {
        let (a, b) = (random.below(starts.len()), random.below(starts.len()));
        starts.swap(a, b);
    }
    if indices.len() > 1 && random.one_in(4) {
        let (a, b) = (random.below(indices.len()), random.below(indices.len()));
        indices.swap(a, b);
    }
    for (part, values) in [("data", &data), ("indices", &indices), ("indptr", &starts)] {
        match random.below(4 * ODDS) {
            0 => {}
            1 => odd_object(random, group, part)?,
            _ => numbers(random, group, part, values)?,
        }
    }
    Ok(())
}

fn dense(random: &mut Random, file: &Group, name: &str, cells: usize, guides: usize) -> Result<()> {
    let (rows, columns) = (length(random, cells), length(random, guides));
    let dataset = match random.below(ODDS) {
        0 => file.new_dataset::<i32>().chunk((64, 64)).shape((1usize << 40.., columns..)).create(name)?,
        1 => file.new_dataset::<f64>().chunk((4, 4, 4)).shape((rows.., columns.., 1..)).create(name)?,
        2 => file.new_dataset::<i32>().deflate(1).chunk((1 << 12, 1 << 10)).shape((rows.., columns..)).create(name)?,
        3..=8 => file.new_dataset::<f32>().shape((rows, columns)).create(name)?,
        _ => file.new_dataset::<u16>().shape((rows, columns)).create(name)?,
    };
    encode(random, &dataset, "array", "0.2.0")?;
    if dataset.size() > 0 && dataset.shape() == [rows, columns] {
        let values: Vec<f32> =
            (0..rows * columns).map(|_| if random.one_in(3) { random.below(20) as f32 } else { 0.0 }).collect();
        let _ = dataset.write_raw(&values);
    }
    Ok(())
}
