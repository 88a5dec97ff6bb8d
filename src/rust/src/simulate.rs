//! Simulated screens for R.
use extendr_api::prelude::*;
use kaichi_core::simulate::{simulate, Screen, SCREENS};
use kaichi_core::Error;

use crate::{guard, watched};

/// The named screens: list(screen, about, params), params a named list of the parameters of each.
/// @noRd
#[extendr]
fn rs_guide_screens() -> Robj {
    guard(|| {
        let mut params = Vec::new();
        for (name, _) in SCREENS {
            params.push(values(&Screen::named(name)?));
        }
        Ok(list!(
            screen = SCREENS.iter().map(|s| s.0).collect::<Vec<_>>(),
            about = SCREENS.iter().map(|s| s.1).collect::<Vec<_>>(),
            params = List::from_values(params)
        )
        .into())
    })
}

/// A screen of known truth. `names`, `lengths`, `numbers` are the parameters to change: their names, how many values each
/// has, and all values in a row. Truth and constructs are 1-based, lanes too.
/// @noRd
#[extendr]
fn rs_simulate_guides(
    screen: &str,
    names: Vec<String>,
    lengths: &[i32],
    numbers: &[f64],
    seed: f64,
    n_jobs: i32,
) -> Robj {
    guard(|| {
        let mut screen = Screen::named(screen)?;
        let mut rest = numbers;
        for (name, &length) in names.iter().zip(lengths) {
            let (these, others) = rest
                .split_at_checked(length as usize)
                .ok_or_else(|| Error::Internal("fewer parameter values than announced".into()))?;
            screen.set(name, these)?;
            rest = others;
        }
        let sim = watched(n_jobs, |progress| simulate(&screen, seed as u64, progress))?;
        let (cut, calls) = sim.best_cut();
        let code = |at: u32| at as i32 + 1;
        Ok(list!(
            p = sim.indptr,
            i = sim.guide,
            x = sim.count,
            oracle = sim.oracle,
            truth_cell = sim.truth.iter().map(|t| code(t.0)).collect::<Vec<i32>>(),
            truth_guide = sim.truth.iter().map(|t| code(t.1)).collect::<Vec<i32>>(),
            lane = sim.cells.iter().map(|c| code(c.lane)).collect::<Vec<i32>>(),
            capture = sim.cells.iter().map(|c| c.capture).collect::<Vec<f64>>(),
            ambient = sim.cells.iter().map(|c| c.ambient).collect::<Vec<f64>>(),
            chimeric = sim.cells.iter().map(|c| c.chimeric).collect::<Vec<f64>>(),
            construct = sim.guides.iter().map(|g| code(g.construct)).collect::<Vec<i32>>(),
            abundance = sim.guides.iter().map(|g| g.abundance).collect::<Vec<f64>>(),
            efficiency = sim.guides.iter().map(|g| g.efficiency).collect::<Vec<f64>>(),
            ambient_share = sim.guides.iter().map(|g| g.ambient_share).collect::<Vec<f64>>(),
            library_share = sim.guides.iter().map(|g| g.library_share).collect::<Vec<f64>>(),
            n_cells = screen.n_cells as i32,
            prior = sim.guides.iter().map(|g| g.prior).collect::<Vec<f64>>(),
            ceiling = calls.f1(),
            ceiling_cut = cut,
            params = values(&screen)
        )
        .into())
    })
}

fn values(screen: &Screen) -> Robj {
    let (names, values): (Vec<&str>, Vec<Robj>) =
        screen.values().into_iter().map(|(name, values)| (name, Robj::from(values))).unzip();
    let mut list: Robj = List::from_values(values).into();
    let set = list.set_names(names);
    debug_assert!(set.is_ok());
    list
}

extendr_module! {
    mod simulate;
    fn rs_guide_screens;
    fn rs_simulate_guides;
}
