//! ambient: one generative model of the whole matrix, learnt from all guides and cells together.
mod cell;
mod em;
mod grid;
mod params;
mod pass;
mod sample;
mod start;
mod tables;
mod update;
#[cfg(test)]
mod tests;

use super::{bounded_log_odds, Control, DefaultRule, Model, ModelInfo, Scores, MOST_LOG_ODDS};
use crate::counts::GuideCounts;
use crate::fit::{Column, Columns, FitRow, FitTable, Status};
use crate::run::Progress;
use crate::Result;
use em::{Climb, Fit};
use pass::{Known, Zeros};
use sample::Sample;

const TRAINING_CELLS: usize = 20_000;
const TRAINING_COUNTS: usize = 60_000;
const SETTLING_COUNTS: usize = 1_500_000;
const SETTLING_ROUNDS: usize = 3;
const START_CELLS: usize = 2_000;
const START_COUNTS: usize = 16_000;
/// With so few guides there are several explanations, which are all climbed to the end.
const FEW_GUIDES: usize = 3;
/// A single guide in more than this share of the cells is carried by them if one population explains all.
const MOST_CELLS: f64 = 0.5;
const SHORT_ROUNDS: usize = 8;
const ROUNDS: usize = 100;
const NEAR: f64 = 1e-4;
const GAIN: f64 = 2e-5;
/// Least mean signal, UMIs.
const LEAST_SIGNAL: f64 = 2.0;

pub struct Ambient;

impl Model for Ambient {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: "ambient",
            family: "mixture",
            unit: "screen",
            confidence: "posterior",
            rule: DefaultRule::MinConfidence(0.5),
            uses_batch: true,
            uses_depth: true,
            about:
                "the whole matrix at once: ambient and chimeric UMIs per cell, signal per guide, shrunken across guides",
            when: "Whenever it can be afforded: needs no choice, best on hard data, also for guides in few cells.",
        }
    }

    fn uses_covariate(&self) -> bool {
        true
    }

    fn score(&self, counts: &GuideCounts, control: &Control, progress: &Progress) -> Result<Scores> {
        let n_cells = counts.n_cells();
        let n_guides = counts.n_guides();
        let mut umis = vec![0.0; n_guides];
        let mut of_guide = vec![0usize; n_guides];
        for (&g, &y) in counts.guides().iter().zip(counts.counts()) {
            umis[g as usize] += y;
            of_guide[g as usize] += 1;
        }
        let live: Vec<bool> = of_guide.iter().map(|&n| n > 0).collect();
        if !live.contains(&true) {
            let rows: Vec<FitRow> = (0..n_guides).map(|unit| gated(unit)).collect();
            return Ok(Scores {
                fits: FitTable::of_units("guide", &names(), &rows),
                screen: screen_table(None, counts),
                ..Scores::default()
            });
        }
        let all_umis: f64 = umis.iter().sum();
        let library: Vec<f64> = umis.iter().map(|u| u / all_umis).collect();
        let trace = std::env::var("KAICHI_TRACE").is_ok();
        let training = Sample::some(counts, TRAINING_CELLS, TRAINING_COUNTS);
        let zeros = match std::env::var("KAICHI_ZEROS").as_deref() {
            Ok("counted") => Zeros::Counted,
            Ok("unseen") => Zeros::Unseen,
            _ => if training.without.iter().sum::<f64>() > 0.0 { Zeros::Counted } else { Zeros::Unseen },
        };
        let climb = Climb { sample: &training, live: &live, zeros, progress };
        let mut best: Option<Fit> = None;
        let few = Sample::some(counts, START_CELLS, START_COUNTS);
        let short = Climb { sample: &few, ..climb };
        let mut starts = vec![start::each_guide(&few, control, progress)?, start::by_share(&few)];
        if n_guides <= FEW_GUIDES {
            starts.push(vec![1.0; few.n_counts]);
        }
        let short_rounds = if n_guides <= FEW_GUIDES { ROUNDS } else { SHORT_ROUNDS };
        for posterior in starts {
            let params = start::start(&few, &library, &posterior, &live, counts.n_batches());
            let mut fit = Fit::new(params, false);
            fit.climb(&short, NEAR, short_rounds, f64::NEG_INFINITY)?;
            if trace { eprintln!("start: {:.2} {:?}", fit.objective, fit.params.shared); }
            if best.as_ref().is_none_or(|b| fit.objective > b.objective) {
                best = Some(fit);
            }
        }
        let mut fit = best.expect("two starts");
        fit.start_over();
        fit.climb(&climb, GAIN, ROUNDS, f64::NEG_INFINITY)?;
        if trace { eprintln!("fit: {:.2} rounds {} {:?}", fit.objective, fit.rounds, fit.params.shared); }
        let mut params = start::start(&training, &library, &vec![0.0; training.n_counts], &vec![false; n_guides], counts.n_batches());
        (params.shared.hopping, params.shared.burst) = (fit.params.shared.hopping, fit.params.shared.burst);
        params.shared.clumping = fit.params.shared.clumping;
        params.shared.ambient_size = fit.params.shared.ambient_size;
        let mut soup = Fit::new(params, true);
        soup.climb(&climb, GAIN, ROUNDS, fit.objective - 2.0 * (3.0 * n_guides as f64 + 50.0))?;
        if trace { eprintln!("soup: {:.2} rounds {} {:?}", soup.objective, soup.rounds, soup.params.shared); }
        let n_live = live.iter().filter(|&&l| l).count() as f64;
        fit.bic_gain = 2.0 * (fit.ln_lik - soup.ln_lik) - (3.0 * n_live + 5.0 * (training.cells.len() as f64).ln());
        let n_trained = training.cells.len() + training.without.iter().sum::<f64>() as usize;
        let all = if n_trained == n_cells {
            training
        } else {
            // Guides learn from more cells.
            let some = Sample::some(counts, n_cells, SETTLING_COUNTS);
            fit.settle(&Climb { sample: &some, ..climb }, SETTLING_ROUNDS)?;
            drop(some);
            Sample::new(counts, 0..n_cells)
        };
        let known = pass::posteriors(&fit.params, &all, progress)?;
        let pairs = &known.pairs;
        let p = &fit.params;
        let carriers: f64 = p.prior.iter().sum();
        let signal: f64 = p.prior.iter().zip(&p.efficiency).map(|(a, b)| a * b).sum();
        // UMIs of a single guide come from its carriers: where one population explains those of most cells, it carries the guide.
        let with_umis = all.cells.len() as f64;
        let is_population = n_guides == 1 && with_umis > MOST_CELLS * n_cells as f64;
        let no_signal = if fit.bic_gain <= 0.0 && !is_population {
            Some("ambient and chimeric UMIs alone explain the screen (BIC)")
        } else if signal < LEAST_SIGNAL * carriers {
            Some("what looks like signal averages under 2 UMIs: it cannot be told from uneven ambient UMIs")
        } else {
            None
        };
        let score: Vec<f64> = pairs.iter().map(|pair| if no_signal.is_some() { 0.0 } else { pair.carried }).collect();
        let log_odds = if control.log_odds {
            let of = |pair: &cell::Pair| if no_signal.is_some() { -MOST_LOG_ODDS } else { bounded_log_odds(pair.ln_odds, pair.carried) };
            pairs.iter().map(of).collect()
        } else {
            vec![]
        };
        let rows: Vec<FitRow> = (0..n_guides)
            .map(|unit| {
                if !live[unit] {
                    return gated(unit);
                }
                let (status, note) = match no_signal {
                    Some(note) => (Status::NoSignal, note.to_string()),
                    None if fit.converged => (Status::Ok, String::new()),
                    None => (Status::NotConverged, format!("not converged after {} rounds", fit.rounds)),
                };
                FitRow {
                    unit,
                    n_cells: of_guide[unit],
                    status,
                    note,
                    values: vec![p.prior[unit], p.share[unit], p.efficiency[unit]],
                    ..FitRow::empty()
                }
            })
            .collect();
        Ok(Scores {
            score,
            log_odds,
            fits: FitTable::of_units("guide", &names(), &rows),
            cells: cell_table(&known, &all, n_cells),
            screen: screen_table(Some(&fit), counts),
        })
    }
}

fn gated(unit: usize) -> FitRow {
    FitRow { unit, status: Status::Gated, note: "no cell has this guide".to_string(), ..FitRow::empty() }
}

/// The parameters of a guide.
fn names() -> Vec<String> {
    ["prior", "ambient_share", "efficiency"].map(String::from).to_vec()
}

/// The effects of the cells, as score_guides() documents them.
fn cell_table(known: &Known, sample: &Sample, n_cells: usize) -> Columns {
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
fn screen_table(fit: Option<&Fit>, counts: &GuideCounts) -> Columns {
    let real = |name: &str, value: Option<f64>| (name.to_string(), Column::Real(vec![value.unwrap_or(f64::NAN)]));
    let mut columns: Columns = params::SEARCHED
        .iter()
        .map(|param| {
            let is_found = counts.has_covariate() || !param.is_slope;
            real(param.name, fit.filter(|_| is_found).map(|fit| param.get(&fit.params.shared)))
        })
        .collect();
    columns.push(real("empty_weight", fit.map(|fit| fit.params.shared.empty_weight)));
    let at_bound = fit.map(|fit| {
        let stuck = params::SEARCHED.iter().filter(|param| param.is_at_bound(&fit.params.shared));
        stuck.map(|param| param.name).collect::<Vec<_>>().join(", ")
    });
    columns.push(("at_bound".to_string(), Column::Text(vec![at_bound])));
    columns.push(real("log_lik", fit.map(|fit| fit.ln_lik)));
    columns.push(real("bic_gain", fit.map(|fit| fit.bic_gain)));
    columns.push(("iterations".to_string(), Column::Integer(vec![fit.map(|fit| fit.rounds as i32)])));
    columns.push(("converged".to_string(), Column::Logical(vec![fit.map(|fit| fit.converged)])));
    columns
}
