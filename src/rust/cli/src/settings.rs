//! The settings of the models, one option each; their defaults are those of the core.
use kaichi_core::models::{Control, ModelInfo, MODELS};
use kaichi_core::{Error, Result};

use crate::args::{Args, Opt, Range};
use crate::csv::number;

pub struct Setting {
    name: &'static str,
    value: &'static str,
    about: &'static str,
    scope: Scope,
    range: Range,
    get: fn(&Control) -> f64,
    set: fn(&mut Control, f64),
}

/// Which models know the setting.
#[derive(Clone, Copy)]
enum Scope {
    Model(&'static str),
    Family(&'static str),
}

impl Scope {
    fn holds(self, info: &ModelInfo) -> bool {
        match self {
            Scope::Model(name) => info.name == name,
            Scope::Family(family) => info.family == family,
        }
    }

    fn words(self) -> String {
        match self {
            Scope::Model(name) => format!("model {name}"),
            Scope::Family(family) => format!("{family} models"),
        }
    }
}

const MOST_WHOLE: f64 = i32::MAX as f64;

static SETTINGS: [Setting; 7] = [
    Setting {
        name: "umi-threshold",
        value: "N",
        about: "least UMIs of a call",
        scope: Scope::Model("umi"),
        range: Range { low: 1.0, high: f64::INFINITY, whole: false },
        get: |c| c.umi_threshold,
        set: |c, x| c.umi_threshold = x,
    },
    Setting {
        name: "min-fraction",
        value: "X",
        about: "share of the cell's guide UMIs that its largest guide must exceed",
        scope: Scope::Model("ratio"),
        range: Range::SHARE,
        get: |c| c.min_fraction,
        set: |c, x| c.min_fraction = x,
    },
    Setting {
        name: "starts",
        value: "N",
        about: "how many starting points are tried; the best log-likelihood wins",
        scope: Scope::Family("mixture"),
        range: Range { low: 1.0, high: 1000.0, whole: true },
        get: |c| c.starts as f64,
        set: |c, x| c.starts = x as usize,
    },
    Setting {
        name: "iterations",
        value: "N",
        about: "most EM iterations of a fit",
        scope: Scope::Family("mixture"),
        range: Range { low: 1.0, high: 1e6, whole: true },
        get: |c| c.iterations as f64,
        set: |c, x| c.iterations = x as usize,
    },
    Setting {
        name: "tolerance",
        value: "X",
        about: "a fit has converged when an iteration gains less log-likelihood (in nats) than this",
        scope: Scope::Family("mixture"),
        range: Range { low: f64::MIN_POSITIVE, high: f64::INFINITY, whole: false },
        get: |c| c.tolerance,
        set: |c, x| c.tolerance = x,
    },
    Setting {
        name: "gate-cells",
        value: "N",
        about: "a guide that fewer cells have is not fitted",
        scope: Scope::Family("mixture"),
        range: Range { low: 0.0, high: MOST_WHOLE, whole: true },
        get: |c| c.gate_cells as f64,
        set: |c, x| c.gate_cells = x as usize,
    },
    Setting {
        name: "gate-count",
        value: "N",
        about: "a guide whose largest count is lower is not fitted",
        scope: Scope::Family("mixture"),
        range: Range { low: 0.0, high: MOST_WHOLE, whole: true },
        get: |c| f64::from(c.gate_count),
        set: |c, x| c.gate_count = x as u32,
    },
];

/// The options of a command that runs the models for which `runs` holds.
pub fn options(runs: impl Fn(&ModelInfo) -> bool) -> Vec<Opt> {
    let defaults = Control::default();
    let infos: Vec<ModelInfo> = MODELS.iter().map(|model| model.info()).filter(|info| runs(info)).collect();
    SETTINGS
        .iter()
        .filter(|s| infos.iter().any(|info| s.scope.holds(info)))
        .map(|s| {
            let default = number((s.get)(&defaults));
            Opt::new(s.name, s.value, format!("{}: {}. Default: {default}.", capital(&s.scope.words()), s.about))
        })
        .collect()
}

pub fn control(args: &Args, info: &ModelInfo) -> Result<Control> {
    let mut control = Control::default();
    for setting in &SETTINGS {
        let Some(value) = args.number(setting.name, setting.range)? else { continue };
        if !setting.scope.holds(info) {
            return Err(Error::Argument(format!(
                "--{} is for the {}; it means nothing for the model \"{}\".",
                setting.name,
                setting.scope.words(),
                info.name
            )));
        }
        (setting.set)(&mut control, value);
    }
    Ok(control)
}

/// The options that set the threshold of a model that decides by itself.
pub fn own_thresholds(info: &ModelInfo) -> Vec<&'static str> {
    SETTINGS.iter().filter(|s| matches!(s.scope, Scope::Model(name) if name == info.name)).map(|s| s.name).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_in_the_registry_and_every_default_in_its_range() {
        for s in &SETTINGS {
            assert!(MODELS.iter().any(|model| s.scope.holds(&model.info())), "{}", s.name);
            let default = (s.get)(&Control::default());
            assert!((s.range.low..=s.range.high).contains(&default), "{}", s.name);
        }
    }

    #[test]
    fn each_option_sets_its_own_field() {
        let mut control = Control::default();
        for (at, s) in SETTINGS.iter().enumerate() {
            (s.set)(&mut control, at as f64 + 20.0);
        }
        let got: Vec<f64> = SETTINGS.iter().map(|s| (s.get)(&control)).collect();
        assert_eq!(got, [20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0]);
    }
}
