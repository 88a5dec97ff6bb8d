//! What a fit says: tables of guides, cells and the screen.
use super::em::Fit;
use super::params::SEARCHED;
use super::pass::Known;
use super::sample::Sample;
use crate::counts::GuideCounts;
use crate::fit::{Column, Columns, FitRow, Status};

/// One row a guide, from its cells and UMIs.
pub fn rows(of_guide: &[(usize, f64)], fit: Option<&Fit>, no_signal: Option<&str>) -> Vec<FitRow> {
    let row = |(unit, &(n_cells, _)): (usize, &(usize, f64))| match fit.filter(|_| n_cells > 0) {
        None => FitRow { unit, status: Status::Gated, note: "no cell has this guide".to_string(), ..FitRow::empty() },
        Some(fit) => {
            let (status, note) = match no_signal {
                Some(note) => (Status::NoSignal, note.to_string()),
                None if fit.converged => (Status::Ok, String::new()),
                None => (Status::NotConverged, format!("not converged after {} rounds", fit.rounds)),
            };
            let p = &fit.params;
            let values = vec![p.prior[unit], p.share[unit], p.efficiency[unit]];
            FitRow { unit, n_cells, status, note, values, ..FitRow::empty() }
        }
    };
    of_guide.iter().enumerate().map(row).collect()
}

/// The parameters of a guide.
pub fn names() -> Vec<String> {
    ["prior", "ambient_share", "efficiency"].map(String::from).to_vec()
}

/// The effects of the cells, as score_guides() documents them.
pub fn cells(known: &Known, sample: &Sample, n_cells: usize) -> Columns {
    let mut table = [(); 4].map(|()| vec![0.0; n_cells]);
    let mut set = |cell: usize, class: u32, [exposure, capture]: [f64; 2]| {
        let expected = known.expected[class as usize];
        for (column, value) in table.iter_mut().zip([expected[0], exposure, expected[1], capture]) {
            column[cell] = value;
        }
    };
    for ((&cell, &class), &effects) in sample.cells.iter().zip(&sample.class_of).zip(&known.effects) {
        set(cell, class, effects);
    }
    for &(cell, class) in &sample.zeros {
        set(cell, class, known.of_zero[class as usize]);
    }
    let names = ["exposure_expected", "exposure", "capture_expected", "capture"];
    names.iter().zip(table).map(|(name, column)| (name.to_string(), Column::Real(column))).collect()
}

/// What all guides share, and how the fit went; missing without one.
pub fn screen(fit: Option<&Fit>, counts: &GuideCounts) -> Columns {
    let real = |name: &str, value: Option<f64>| (name.to_string(), Column::Real(vec![value.unwrap_or(f64::NAN)]));
    let mut columns: Columns = SEARCHED
        .iter()
        .map(|param| {
            let is_found = counts.has_covariate() || !param.is_slope;
            real(param.name, fit.filter(|_| is_found).map(|fit| param.get(&fit.params.shared)))
        })
        .collect();
    columns.push(real("empty_weight", fit.map(|fit| fit.params.shared.empty_weight)));
    let at_bound = fit.map(|fit| fit.at_bound().join(", "));
    let note = fit.map(|fit| fit.note.to_string());
    columns.push(("at_bound".to_string(), Column::Text(vec![at_bound])));
    columns.push(("remark".to_string(), Column::Text(vec![note])));
    columns.push(real("log_lik", fit.map(|fit| fit.ln_lik)));
    columns.push(real("bic_gain", fit.map(|fit| fit.bic_gain)));
    columns.push(("iterations".to_string(), Column::Integer(vec![fit.map(|fit| fit.rounds as i32)])));
    columns.push(("converged".to_string(), Column::Logical(vec![fit.map(|fit| fit.converged)])));
    columns
}
