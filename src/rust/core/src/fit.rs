//! The fit table: one row per fit, with parameters and a status in words.

/// A column of a table that goes to the user.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// NaN is missing.
    Real(Vec<f64>),
    Integer(Vec<Option<i32>>),
    Logical(Vec<Option<bool>>),
    Text(Vec<Option<String>>),
}

impl Column {
    pub fn len(&self) -> usize {
        match self {
            Column::Real(values) => values.len(),
            Column::Integer(values) => values.len(),
            Column::Logical(values) => values.len(),
            Column::Text(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Named columns of one length.
pub type Columns = Vec<(String, Column)>;

/// The table of the fits. `guide` and `batch` hold 0-based codes, which the caller turns into names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FitTable {
    pub columns: Columns,
}

/// The columns that say how well a fit went. A model with one fit for the whole screen has them in
/// [`crate::models::Scores::screen`] instead of in every row.
const OF_FIT: [&str; 4] = ["log_lik", "bic_gain", "iterations", "converged"];

/// How a fit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    Gated,
    NoSignal,
    NotConverged,
    /// Fewer populations than the model has components.
    FewerComponents,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Gated => "gated",
            Status::NoSignal => "no_signal",
            Status::NotConverged => "not_converged",
            Status::FewerComponents => "fewer_components",
        }
    }
}

/// One row of the table of a mixture.
#[derive(Debug, Clone)]
pub struct FitRow {
    /// Guide or batch, 0-based.
    pub unit: usize,
    pub status: Status,
    /// What the status means here, in words; empty when all is well.
    pub note: String,
    /// Cells with the guide (or with any guide, for fits per batch).
    pub n_cells: usize,
    /// Parameters, in the order of the names given to [`FitTable::from_rows`]; missing ones are NaN.
    pub values: Vec<f64>,
    pub log_lik: f64,
    /// BIC of one component less BIC of the mixture: positive speaks for two populations.
    pub bic_gain: f64,
    pub iterations: Option<usize>,
    pub converged: Option<bool>,
}

impl FitTable {
    /// `unit` is "guide" or "batch".
    pub fn from_rows(unit: &str, names: &[String], rows: &[FitRow]) -> Self {
        let real = |f: &dyn Fn(&FitRow) -> f64| Column::Real(rows.iter().map(f).collect());
        let mut columns = vec![
            (unit.to_string(), Column::Integer(rows.iter().map(|r| Some(r.unit as i32)).collect())),
            ("status".into(), Column::Text(rows.iter().map(|r| Some(r.status.name().into())).collect())),
            ("n_cells".into(), Column::Integer(rows.iter().map(|r| Some(r.n_cells as i32)).collect())),
        ];
        for (at, name) in names.iter().enumerate() {
            columns.push((name.clone(), real(&|r| r.values.get(at).copied().unwrap_or(f64::NAN))));
        }
        columns.push(("log_lik".into(), real(&|r| r.log_lik)));
        columns.push(("bic_gain".into(), real(&|r| r.bic_gain)));
        columns.push((
            "iterations".into(),
            Column::Integer(rows.iter().map(|r| r.iterations.map(|n| n as i32)).collect()),
        ));
        columns.push(("converged".into(), Column::Logical(rows.iter().map(|r| r.converged).collect())));
        columns.push(("note".into(), Column::Text(rows.iter().map(|r| Some(r.note.clone())).collect())));
        Self { columns }
    }

    /// A table for models with one fit for the whole screen: what the units have of their own, without the columns that
    /// say how well the fit went.
    pub fn of_units(unit: &str, names: &[String], rows: &[FitRow]) -> Self {
        let mut table = Self::from_rows(unit, names, rows);
        table.columns.retain(|(name, _)| !OF_FIT.contains(&name.as_str()));
        table
    }

    /// A table for models without a fit: one row a unit, its number of cells.
    pub fn unfitted(unit: &str, n_cells: &[usize]) -> Self {
        let rows: Vec<FitRow> =
            n_cells.iter().enumerate().map(|(unit, &n_cells)| FitRow { unit, n_cells, ..FitRow::empty() }).collect();
        Self::of_units(unit, &[], &rows)
    }

    pub fn real(&self, name: &str) -> Option<&[f64]> {
        self.columns.iter().find(|(n, _)| n == name).and_then(|(_, column)| match column {
            Column::Real(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    /// A column of text, empty where there is no such column.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.columns.iter().find(|(n, _)| n == name) {
            Some((_, Column::Text(values))) => values.iter().map(|value| value.clone().unwrap_or_default()).collect(),
            _ => vec![],
        }
    }
}

impl FitRow {
    pub fn empty() -> Self {
        Self {
            unit: 0,
            status: Status::Ok,
            note: String::new(),
            n_cells: 0,
            values: vec![],
            log_lik: f64::NAN,
            bic_gain: f64::NAN,
            iterations: None,
            converged: None,
        }
    }
}
