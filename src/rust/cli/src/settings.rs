//! The settings of the models, one option each, in the order of model_control() of the R package; their defaults are those of the core.
use clap::{Arg, ArgMatches};
use kaichi_core::models::{Control, ModelInfo, MODELS};
use kaichi_core::{Error, Result};

use crate::cli::numeric;
use crate::numbers::{as_r, number, option, Range};

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

impl Setting {
    fn check_scope(&self, given: &str, info: &ModelInfo) -> Result<()> {
        match self.scope.holds(info) {
            true => Ok(()),
            false => Err(Error::Argument(format!(
                "{given} is for the {}; it means nothing for the model \"{}\".",
                self.scope.words(),
                info.name
            ))),
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
pub fn options(runs: impl Fn(&ModelInfo) -> bool) -> Vec<Arg> {
    let defaults = Control::default();
    let infos: Vec<ModelInfo> = MODELS.iter().map(|model| model.info()).filter(|info| runs(info)).collect();
    SETTINGS
        .iter()
        .filter(|s| infos.iter().any(|info| s.scope.holds(info)))
        .map(|s| {
            let default = number((s.get)(&defaults));
            let about = format!("{}: {} [default: {default}]", capital(&s.scope.words()), s.about);
            numeric(s.name, s.value, about).help_heading("Settings of the models")
        })
        .collect()
}

/// The settings of `--params` and, over them, of their own options.
pub fn control(matches: &ArgMatches, info: &ModelInfo) -> Result<Control> {
    let mut control = Control::default();
    if let Some(text) = matches.get_one::<String>("params") {
        from_json(&json_text(text)?, info, &mut control)?;
    }
    for setting in &SETTINGS {
        // score has not the settings of models without scores.
        let given = matches.try_contains_id(setting.name).unwrap_or(false);
        let Some(value) = given.then(|| option(matches, setting.name, setting.range)).transpose()?.flatten() else {
            continue;
        };
        setting.check_scope(&format!("--{}", setting.name), info)?;
        (setting.set)(&mut control, value);
    }
    Ok(control)
}

fn json_text(given: &str) -> Result<String> {
    let Some(path) = given.strip_prefix('@') else { return Ok(given.to_owned()) };
    std::fs::read_to_string(path)
        .map_err(|error| Error::File(format!("The file \"{path}\" of --params cannot be read: {error}.")))
}

fn from_json(text: &str, info: &ModelInfo, control: &mut Control) -> Result<()> {
    let wrong = |what: String| Error::Argument(format!("--params {what}."));
    let values: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| wrong(format!("is no JSON object such as {{\"starts\": 4}}: {error}")))?;
    for (name, value) in values {
        let Some(setting) = SETTINGS.iter().find(|s| s.name.replace('-', "_") == name) else {
            let known: Vec<String> = SETTINGS.iter().map(|s| s.name.replace('-', "_")).collect();
            return Err(wrong(format!("has \"{name}\", which is no setting; they are {}", known.join(", "))));
        };
        let number = value.as_f64().filter(|&x| setting.range.holds(x));
        let number =
            number.ok_or_else(|| wrong(format!("has {value} as \"{name}\"; give {}", setting.range.describe())))?;
        setting.check_scope(&format!("\"{name}\" of --params"), info)?;
        (setting.set)(control, number);
    }
    Ok(())
}

/// The settings as the R package writes them into uns/kaichi/model_params; `batches` are those of the cells, by name.
pub fn as_json(control: &Control, batches: Option<&[&str]>) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut fields: Vec<(String, String)> =
        SETTINGS.iter().map(|s| (s.name.replace('-', "_"), as_r((s.get)(control)))).collect();
    let batches = match batches {
        None => "null".to_owned(),
        Some([one]) => text(one),
        Some(names) => format!("[{}]", names.iter().map(|name| text(name)).collect::<Vec<_>>().join(",")),
    };
    fields.push(("batches".to_owned(), batches));
    fields.push(("covariate".to_owned(), "false".to_owned()));
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", text(name))).collect();
    format!("{{{}}}", fields.join(","))
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

    #[test]
    fn json_sets_what_the_options_set() {
        let info = |name: &str| kaichi_core::models::find(name).unwrap().info();
        let set = |model: &str, text: &str| {
            let mut control = Control::default();
            from_json(text, &info(model), &mut control).map(|()| control).map_err(|error| error.to_string())
        };
        assert_eq!(
            set("gauss", "{\"starts\": 2, \"tolerance\": 1e-3}").unwrap(),
            Control { starts: 2, tolerance: 1e-3, ..Control::default() }
        );
        assert!(set("gauss", "{\"start\": 2}").unwrap_err().contains("no setting"));
        assert!(set("gauss", "{\"starts\": 0}").unwrap_err().contains("whole number from 1"));
        assert!(set("gauss", "{\"umi_threshold\": 3}").unwrap_err().contains("means nothing"));
        assert!(set("gauss", "starts=2").unwrap_err().contains("no JSON object"));
    }
}
