//! The names of the features or cells of a matrix, from a file beside it: a list or a table, with a header or without.
use std::path::{Path, PathBuf};

use super::super::features::{is_guide_type, Described};
use super::super::guide_table::GuideTable;
use super::super::h5ad::frame::first_twice;
use super::super::h5ad::values::{quoted, Source};
use super::super::text::{self, are_row_numbers, file_name};
use super::super::words::{self, GUIDE_COLUMNS};
use super::beside::Role;
use crate::Result;

pub struct Names {
    pub path: PathBuf,
    pub ids: Vec<String>,
    /// Other names of features, such as Ensembl ids beside symbols.
    also: Vec<Vec<String>>,
    /// The types of the features, where they are said.
    pub types: Option<Vec<String>>,
    /// Columns of a table with a header.
    pub columns: Vec<(String, Vec<String>)>,
}

impl Names {
    /// Of several files the one that is as long as a side of the matrix; of several of them the first, if all are of features,
    /// whose other names may have a file of their own.
    pub fn of_length(matrix: Source, role: Role, paths: &[PathBuf], sides: [usize; 2]) -> Result<Self> {
        let mut read: Vec<Names> =
            paths.iter().map(|path| Names::read(path.clone(), role, sides)).collect::<Result<_>>()?;
        if read.len() > 1 {
            read.retain(|names| sides.contains(&names.ids.len()));
            let start = |names: &Names| file_name(&names.path).split('.').take(2).collect::<Vec<_>>().join(".");
            if read.windows(2).all(|pair| start(&pair[0]) == start(&pair[1])) {
                read.truncate(1);
            }
        }
        match read.len() {
            1 => Ok(read.swap_remove(0)),
            n => {
                let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
                let (what, argument) =
                    if role == Role::Features { ("guides", "features") } else { ("cells", "barcodes") };
                Err(matrix.format(format!(
                    "is {} x {}, and of the files that may name its {what}, {}, {} so many names.\n  Leave the right one beside it, \
                     or give it as `{argument}`.",
                    sides[0],
                    sides[1],
                    quoted(&names),
                    if n == 0 { "none has" } else { "several have" }
                )))
            }
        }
    }

    /// `sides` are the lengths of the matrix, by which a header is known.
    pub fn read(path: PathBuf, role: Role, sides: [usize; 2]) -> Result<Self> {
        let source = Source(&path);
        let (header, mut columns) = fields(source, &text::read(source)?, sides)?;
        let mut header = header.unwrap_or_default();
        // The numbers of the rows, as pandas writes them, or R before the names of the columns.
        let is_index = ["", "index", "unnamed0", "rownames", "x"]
            .contains(&words::bare(header.first().map_or("", String::as_str)).as_str());
        if columns.len() > 1 && is_index && are_row_numbers(columns[0].iter().map(String::as_str)) {
            columns.remove(0);
            header.drain(..header.len().min(1));
        }
        let mut names = Names { ids: vec![], also: vec![], types: None, columns: vec![], path };
        match (header.is_empty(), role) {
            (true, Role::Features) => {
                // id, name, type.
                names.types = (columns.len() > 2).then(|| columns[2].clone());
                names.also = columns.iter().skip(1).take(1).cloned().collect();
                names.ids = columns.swap_remove(0);
            }
            (true, _) => names.ids = columns.swap_remove(0),
            (false, role) => {
                names.columns = header.into_iter().zip(columns).collect();
                match role {
                    Role::Features => names.name_features(),
                    _ => names.name_cells(),
                }
            }
        }
        Ok(names)
    }

    fn column(&self, words: &[&str]) -> Option<&Vec<String>> {
        let header: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        words::find(&header, words).map(|at| &self.columns[at].1)
    }

    /// The type of each feature, and the first column that names each guide, once: Parse's gene_id is empty, repeated or a number for
    /// some, whose gene_name is the name in the library.
    fn name_features(&mut self) {
        self.types = self.column(&["feature_types", "feature_type"]).cloned().or_else(|| {
            // Parse has guides in a genome of their own.
            let genomes = self.column(&["genome"])?;
            let guides = genomes.iter().filter(|name| is_guide_type(name)).count();
            (0 < guides && guides < genomes.len()).then(|| genomes.clone())
        });
        let are_guides: Vec<bool> = match &self.types {
            Some(types) if types.iter().any(|name| is_guide_type(name)) => {
                types.iter().map(|name| is_guide_type(name)).collect()
            }
            _ => vec![true; self.columns.first().map_or(0, |(_, values)| values.len())],
        };
        let [(_, guide_id), ..] = GUIDE_COLUMNS;
        let candidates: Vec<&Vec<String>> = guide_id
            .iter()
            .chain(&["gene_name", "gene_id"])
            .filter_map(|word| self.column(&[word]))
            .chain(self.columns.first().map(|(_, values)| values))
            .collect();
        let sound = |ids: &&Vec<String>| {
            let of_guides: Vec<String> =
                ids.iter().zip(&are_guides).filter(|(_, is)| **is).map(|(id, _)| id.clone()).collect();
            !of_guides.iter().any(String::is_empty) && first_twice(&of_guides).is_none()
        };
        let best = candidates.iter().copied().find(sound).or(candidates.first().copied());
        let ids = best.cloned().unwrap_or_default();
        let also =
            ["gene_id", "gene_ids", "gene_name"].iter().filter_map(|word| self.column(&[word]).cloned()).collect();
        self.ids = ids;
        self.also = also;
    }

    /// The column of barcodes. Where samples share some, as in the output of Parse for several sublibraries, the sample goes first.
    fn name_cells(&mut self) {
        let first = self.columns.first().map(|(_, values)| values);
        let mut ids = self.column(words::CELL).or(first).cloned().unwrap_or_default();
        if first_twice(&ids).is_some() {
            if let Some(samples) = self.column(&["sample", "sublibrary", "sublib"]) {
                let both: Vec<String> = samples.iter().zip(&ids).map(|(sample, id)| format!("{sample}_{id}")).collect();
                if first_twice(&both).is_none() {
                    ids = both;
                }
            }
        }
        self.ids = ids;
    }

    /// What kallisto puts before the barcodes of several samples.
    pub fn with_prefixes(&mut self, path: &Path) -> Result<()> {
        let source = Source(path);
        let (_, columns) = fields(source, &text::read(source)?, [self.ids.len(); 2])?;
        let prefixes = columns.into_iter().next().unwrap_or_default();
        if prefixes.len() != self.ids.len() {
            return Err(source.format(format!(
                "has {} prefixes for {} cells.\n  They must be of one run, or leave the file out.",
                prefixes.len(),
                self.ids.len()
            )));
        }
        self.ids.iter_mut().zip(prefixes).for_each(|(id, prefix)| *id = prefix + id);
        Ok(())
    }

    pub fn described(&self) -> Described<'_> {
        Described { names: &self.ids, also: &self.also, types: self.types.as_deref() }
    }

    /// What the table says of the features: columns of a guide table.
    pub fn facts(&self) -> GuideTable {
        let header: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let of = |name: &str| {
            let (_, values) = &self.columns[words::find_guide_column(&header, name)?];
            Some((name.to_owned(), values.iter().map(|value| Some(value.clone())).collect()))
        };
        GUIDE_COLUMNS[1..].iter().filter_map(|(name, _)| of(name)).collect()
    }

    pub fn batch(&self, name: &str) -> Result<Vec<String>> {
        let source = Source(&self.path);
        if let Some((_, values)) = self.columns.iter().find(|(column, _)| column == name) {
            if let Some(at) = values.iter().position(String::is_empty) {
                return Err(
                    source.batch(format!("{name} is empty for cell \"{}\". Give every cell a batch.", self.ids[at]))
                );
            }
            return Ok(values.clone());
        }
        let columns: Vec<&String> = self.columns.iter().map(|(column, _)| column).collect();
        Err(source.batch(match columns.is_empty() {
            true => format!(
                "there is no column \"{name}\", only the names of the cells. Give the batch of each cell itself."
            ),
            false => format!("there is no column \"{name}\".\n  Its columns are {}.", quoted(&columns)),
        }))
    }
}

/// The header, if there is one, and the columns below it, all of one length.
type Fields = (Option<Vec<String>>, Vec<Vec<String>>);

fn fields(source: Source, text: &str, sides: [usize; 2]) -> Result<Fields> {
    let name = file_name(source.0).to_lowercase();
    let is_csv = name.trim_end_matches(".gz").ends_with(".csv");
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // R quotes what it writes, and separates by blanks.
    let quoted = first.trim_start().starts_with('"');
    let delimiter = match (is_csv, first.contains('\t')) {
        (true, _) => text::delimiter(first).unwrap_or(b','),
        (false, true) => b'\t',
        (false, false) if quoted && text.lines().nth(1).is_some_and(|line| line.contains("\" \"")) => b' ',
        _ => b'\t',
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .quoting(is_csv || quoted)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut records: Vec<Vec<String>> = vec![];
    for record in reader.records() {
        let record = record.map_err(|error| source.format(format!("cannot be read: {error}.")))?;
        records.push(record.iter().map(|field| field.trim().to_owned()).collect());
    }
    // Blank lines at the end.
    while records.last().is_some_and(|record| record.iter().all(String::is_empty)) {
        records.pop();
    }
    let header = is_header(&records, sides, is_csv).then(|| records.remove(0));
    let header = header.map(|mut header| {
        // R has no name for the column of row names.
        if records.first().is_some_and(|record| record.len() == header.len() + 1) {
            header.insert(0, String::new());
        }
        header
    });
    let n = header.as_ref().or(records.first()).map_or(1, Vec::len).max(1);
    let mut columns: Vec<Vec<String>> = vec![vec![]; n];
    for (row, record) in records.into_iter().enumerate() {
        if record.len() != n {
            return Err(source.format(format!(
                "has {} columns in entry {} and {n} before it.\n  It may be cut short or damaged.",
                record.len(),
                row + 1,
            )));
        }
        columns.iter_mut().zip(record).for_each(|(column, value)| column.push(value));
    }
    Ok((header, columns))
}

/// Whether the first record names columns: by the number of names that the matrix has, where that tells it.
fn is_header(records: &[Vec<String>], sides: [usize; 2], is_csv: bool) -> bool {
    let Some(first) = records.first() else { return false };
    match (sides.contains(&records.len()), sides.contains(&(records.len() - 1))) {
        (true, false) => false,
        (false, true) => true,
        (fits, _) => {
            let known = || GUIDE_COLUMNS.iter().flat_map(|(_, words)| *words).chain(words::CELL).chain(words::FEATURE);
            let is_known = |field: &String| known().any(|word| words::bare(word) == words::bare(field));
            first.iter().any(is_known) || (is_csv && !fits)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, role: Role, sides: [usize; 2]) -> Names {
        let path = std::env::temp_dir().join(format!("kaichi-{}-names-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let names = Names::read(path.clone(), role, sides).unwrap();
        std::fs::remove_file(&path).unwrap();
        names
    }

    #[test]
    fn every_way_to_write_names_gives_the_same() {
        let ways = [
            ("plain.tsv", "a\nb\nc\n"),
            ("blank.tsv", "\u{feff}a \r\nb\r\n c\r\n\r\n"),
            ("quoted.tsv", "\"a\"\n\"b\"\n\"c\"\n"),
            ("header.tsv", "barcode\na\nb\nc\n"),
            ("pandas.csv", ",0\n0,a\n1,b\n2,c\n"),
            ("r.txt", "\"x\"\n\"1\" \"a\"\n\"2\" \"b\"\n\"3\" \"c\"\n"),
            ("r.csv", "\"\",\"x\"\n\"1\",\"a\"\n\"2\",\"b\"\n\"3\",\"c\"\n"),
            ("numbered.csv", "0,a\n1,b\n2,c\n"),
            ("semicolons.csv", "cell_id;n\na;1\nb;2\nc;3\n"),
        ];
        for (name, text) in ways {
            assert_eq!(read(name, text, Role::Cells, [3, 9]).ids, ["a", "b", "c"], "{name}");
        }
    }

    #[test]
    fn features_have_the_names_of_the_library() {
        let text = "gene_id,gene_name,genome\nguide_1,sgA,crispr\nguide_2,sgB,crispr\n";
        assert_eq!(read("guides.csv", text, Role::Features, [2, 9]).ids, ["sgA", "sgB"]);
        // Ids where names are repeated.
        let text = "gene_id,gene_name,genome\nENSG1,A,hg38\nENSG2,A,hg38\n";
        assert_eq!(read("genes.csv", text, Role::Features, [2, 9]).ids, ["ENSG1", "ENSG2"]);
        let text = "gene_id,gene_name,genome\nENSG1,A,hg38\nENSG2,A,hg38\nguide_1,sgA,crispr\n";
        let mixed = read("mixed.csv", text, Role::Features, [3, 9]);
        assert_eq!(
            (&mixed.ids[2], mixed.types.unwrap()),
            (&"sgA".to_owned(), ["hg38", "hg38", "crispr"].map(String::from).to_vec())
        );
        let text = "id\tfeature_type\ttarget_gene_name\tsequence\nsgA\tCRISPR\tA\tACGT\n";
        let facts = read("facts.tsv", text, Role::Features, [1, 9]).facts();
        assert_eq!(facts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["target", "sequence"]);
    }

    #[test]
    fn cells_of_several_samples_are_told_apart() {
        let text = "bc_wells,sample\n01_01_01,s1\n01_01_01,s2\n";
        assert_eq!(read("samples.csv", text, Role::Cells, [2, 9]).ids, ["s1_01_01_01", "s2_01_01_01"]);
    }
}
