//! The commands.
use kaichi_core::counts::GuideCounts;
use kaichi_core::decide::{decide, set_probability, Calls, Cut, Rule};
use kaichi_core::diagnose::diagnose;
use kaichi_core::io::{self, GuideFile, ReadOptions};
use kaichi_core::models::{self, DefaultRule, Model, ModelInfo, Scores, MODELS};
use kaichi_core::run::{on_threads, Progress};
use kaichi_core::{Error, Result};

use crate::args::{Args, Command, Opt, Range};
use crate::csv::number;
use crate::output::{print, Plan, Writer};
use crate::scores;
use crate::settings;
use crate::tables::{guide_status, Called, Fits};

/// The default of assign_guides() and score_guides() of the R package.
const DEFAULT_MODEL: &str = "poisson_gauss";

pub static COMMANDS: [Command; 4] = [
    Command {
        name: "models",
        input: None,
        about: "Lists the models and when to use each.",
        notes: "",
        options: Vec::new,
        run: list_models,
    },
    Command {
        name: "assign",
        input: Some("INPUT.h5ad"),
        about: "Decides which guides each cell received: scores every (cell, guide) pair and calls those that pass.",
        notes: "\
The table of cells has one row per cell, in input order, and the columns cell_barcode, guide_id (the called guide
with the highest confidence), umi_count, assignment_confidence, is_unassigned, is_multi_infected, n_guides_detected
and set_probability (that the cell carries exactly the guides called, for models whose confidence is a posterior).
It is CSV (RFC 4180, UTF-8); what is missing is empty.
",
        options: || {
            let mut options = vec![model_option(|_| true)];
            options.extend(decision_options());
            options.extend(input_options());
            options.extend(settings::options(|_| true));
            options.extend([out_option("cells", "cells, pairs and fits"), pairs_option(), fits_option()]);
            options
        },
        run: assign,
    },
    Command {
        name: "score",
        input: Some("INPUT.h5ad"),
        about: "Fits a model once and keeps its scores, so that kaichi decide can try many thresholds.",
        notes: "\
The scores are CSV after comment lines that start with #:
  # kaichi scores 1                        the format
  # model: NAME, # rule: NAME VALUE        how kaichi decide calls when no threshold is given
  # guides: N, # cells: N, # counts: N     what the file must hold
  cell_barcode,guide_id,umi_count,score
  ,GUIDE,,                                 every guide, in input order
  CELL,GUIDE,UMIS,SCORE                    every stored count of a cell, guides in the order above
  CELL,,,                                  a cell without guide UMIs
Cells stand in input order. Scores have all their digits.
",
        options: || {
            let mut options = vec![model_option(keeps_scores)];
            options.extend(input_options());
            options.extend(settings::options(keeps_scores));
            options.extend([out_option("scores", "scores and fits"), fits_option()]);
            options
        },
        run: score,
    },
    Command {
        name: "decide",
        input: Some("SCORES.csv"),
        about: "Turns the scores of kaichi score into calls; - reads them from standard input.",
        notes: "The tables are those of kaichi assign.\n",
        options: || {
            let mut options = decision_options();
            options.extend([out_option("cells", "cells and pairs"), pairs_option()]);
            options
        },
        run: decide_scores,
    },
];

fn model_option(runs: impl Fn(&ModelInfo) -> bool) -> Opt {
    Opt::new("model", "NAME", format!("One of {}. Default: {DEFAULT_MODEL}.", names(runs)))
}

fn decision_options() -> Vec<Opt> {
    // Defaults as the registry has them, models of one default together.
    let defaults = |default: fn(DefaultRule) -> Option<f64>| {
        let mut cuts: Vec<f64> = MODELS.iter().filter_map(|model| default(model.info().rule)).collect();
        cuts.sort_by(f64::total_cmp);
        cuts.dedup();
        let each = |&cut: &f64| format!("{} ({})", number(cut), names(|info| default(info.rule) == Some(cut)));
        cuts.iter().map(each).collect::<Vec<_>>().join(", ")
    };
    let min_confidence = defaults(|rule| match rule {
        DefaultRule::MinConfidence(cut) => Some(cut),
        _ => None,
    });
    let quantile = defaults(|rule| match rule {
        DefaultRule::TopShare(cut) => Some(cut),
        _ => None,
    });
    let single = names(|info| info.rule == DefaultRule::SingleStage);
    vec![
        Opt::new(
            "min-confidence",
            "X",
            format!(
                "Calls have a score of at least this, 0 to 1. Not for {single}, which decide by themselves. \
                 Default: {min_confidence}."
            ),
        ),
        Opt::new(
            "quantile",
            "Q",
            format!("Per guide, the share of the cells with it that is called, 0 to 1. Default: {quantile}."),
        ),
        Opt::new(
            "fdr",
            "X",
            format!(
                "The largest set of calls whose expected share of false pairs is at most this, 0 to 1. For {}.",
                names(is_posterior)
            ),
        ),
        Opt::new("min-umi", "N", "Calls with fewer UMIs are dropped, whatever the model. Default: 0."),
    ]
}

fn input_options() -> Vec<Opt> {
    let batched = names(|info| info.uses_batch);
    vec![
        Opt::new("batch", "COLUMN", format!("Column of obs with the batch of each cell. Used by {batched}.")),
        Opt::new("layer", "NAME", "Layer with the raw UMI counts. Default: X."),
        Opt::new("jobs", "N", "Worker threads. Results do not depend on it. Default: half of the logical cores."),
    ]
}

fn out_option(first: &str, all: &str) -> Opt {
    Opt::new(
        "out",
        "PATH",
        format!(
            "A name that ends in .csv, or an existing file: the {first} go there. Any other: a folder for {all}, as .csv. \
             Default: the {first} go to standard output."
        ),
    )
}

fn pairs_option() -> Opt {
    Opt::new("pairs", "FILE", "CSV of all called pairs: cell_barcode, guide_id, umi_count, assignment_confidence.")
}

fn fits_option() -> Opt {
    Opt::new("fits", "FILE", "CSV of the fits: parameters, and a status in words.")
}

fn keeps_scores(info: &ModelInfo) -> bool {
    info.rule != DefaultRule::SingleStage
}

/// The names of the models for which `which` holds.
fn names(which: impl Fn(&ModelInfo) -> bool) -> String {
    let infos = MODELS.iter().map(|model| model.info());
    infos.filter(|info| which(info)).map(|info| info.name).collect::<Vec<_>>().join(", ")
}

fn list_models(_: &Args) -> Result<()> {
    print(&models_table())
}

fn models_table() -> String {
    let mut rows = vec![["model", "fitted per", "depth", "batch", "confidence", "rule", "about"].map(str::to_owned)];
    for model in MODELS {
        let info = model.info();
        let yes = |used: bool| if used { "yes" } else { "-" }.to_owned();
        let rule = match info.rule {
            DefaultRule::SingleStage => "by itself".to_owned(),
            DefaultRule::MinConfidence(cut) => format!("min_confidence {}", number(cut)),
            DefaultRule::TopShare(cut) => format!("quantile {}", number(cut)),
        };
        rows.push([
            info.name.to_owned(),
            info.unit.to_owned(),
            yes(info.uses_depth),
            yes(info.uses_batch),
            info.confidence.to_owned(),
            rule,
            info.about.to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    let when: Vec<_> =
        MODELS.iter().map(|model| (model.info().name.to_owned(), model.info().when.to_owned())).collect();
    format!("{text}\nWhen to use which:\n{}", crate::args::columns(&when))
}

fn assign(args: &Args) -> Result<()> {
    let model = chosen_model(args)?;
    let info = model.info();
    let default = default_cut(&info);
    let cut = chosen_cut(args, info.name, default, &settings::own_thresholds(&info))?;
    let rule = Rule { cut, min_umi: min_umi(args)? };
    let plan = Plan::new(args, &["cells", "pairs", "fits"])?;
    let (file, scores) = scored(args, model)?;
    let counts = file.guide_counts()?;
    let calls = decide(&counts, &scores.score, &rule)?;
    let guides = diagnose(&counts, &scores.score, &calls, is_posterior(&info), &guide_status(&scores.fits));
    let fits = Fits::named(&scores.fits, &file).with_calls(&scores.fits, &guides);
    let sets = sets(&info, &counts, &scores.score, &calls);
    let mut writers = call_writers(&file, &scores.score, &calls, sets.as_deref());
    writers.push(("fits", Box::new(move |out| fits.write(out))));
    plan.write(writers)
}

fn score(args: &Args) -> Result<()> {
    let model = chosen_model(args)?;
    let info = model.info();
    let Some(cut) = default_cut(&info) else {
        return Err(Error::Model(format!(
            "The model \"{0}\" decides in a single stage and has no scores to keep.\n  Use kaichi assign --model {0}.",
            info.name
        )));
    };
    let plan = Plan::new(args, &["scores", "fits"])?;
    let (file, scored) = scored(args, model)?;
    let fits = Fits::named(&scored.fits, &file);
    plan.write(vec![
        ("scores", Box::new(|out| scores::write(out, info.name, cut, &file, &scored.score))),
        ("fits", Box::new(|out| fits.write(out))),
    ])
}

fn decide_scores(args: &Args) -> Result<()> {
    let plan = Plan::new(args, &["cells", "pairs"])?;
    let min_umi = min_umi(args)?;
    let file = scores::read(args.input())?;
    let cut = chosen_cut(args, &file.model, Some(file.cut), &[])?;
    let counts = file.counts.guide_counts()?;
    let calls = decide(&counts, &file.score, &Rule { cut, min_umi })?;
    let sets = sets(&models::find(&file.model)?.info(), &counts, &file.score, &calls);
    plan.write(call_writers(&file.counts, &file.score, &calls, sets.as_deref()))
}

/// Of each cell the probability that it carries exactly what is called, where the model says so.
fn sets(info: &ModelInfo, counts: &GuideCounts, score: &[f64], calls: &Calls) -> Option<Vec<f64>> {
    is_posterior(info).then(|| set_probability(counts, score, calls))
}

fn is_posterior(info: &ModelInfo) -> bool {
    info.confidence == "posterior"
}

fn chosen_model(args: &Args) -> Result<&'static dyn Model> {
    models::find(args.text("model")?.unwrap_or(DEFAULT_MODEL))
}

/// None for a model that decides by itself.
fn default_cut(info: &ModelInfo) -> Option<Cut> {
    match info.rule {
        DefaultRule::SingleStage => None,
        DefaultRule::MinConfidence(cut) => Some(Cut::MinConfidence(cut)),
        DefaultRule::TopShare(share) => Some(Cut::TopShare(share)),
    }
}

/// The one rule that decides: the user's where there is one, else the model's.
fn chosen_cut(args: &Args, model: &str, default: Option<Cut>, own_thresholds: &[&str]) -> Result<Cut> {
    let min_confidence = args.number("min-confidence", Range::SHARE)?;
    let quantile = args.number("quantile", Range::SHARE)?;
    if quantile.is_some() && !matches!(default, Some(Cut::TopShare(_))) {
        return Err(Error::Argument(format!(
            "--quantile is for models that rank; \"{model}\" is decided by {}.",
            if default.is_none() { "itself" } else { "--min-confidence" }
        )));
    }
    if let Some(fdr) = args.number("fdr", Range::SHARE)? {
        if min_confidence.is_some() || quantile.is_some() {
            return Err(Error::Argument("Give one of --min-confidence, --quantile and --fdr.".into()));
        }
        if !is_posterior(&models::find(model)?.info()) {
            return Err(Error::Argument(format!(
                "--fdr needs scores that are posterior probabilities; those of \"{model}\" are not."
            )));
        }
        return Ok(Cut::Fdr(fdr));
    }
    match (min_confidence, quantile, default) {
        (Some(_), Some(_), _) => Err(Error::Argument("Give --min-confidence or --quantile, not both.".into())),
        (Some(_), None, None) => {
            let hint = match own_thresholds {
                [] => String::new(),
                options => format!(" Its threshold is --{}.", options.join(", --")),
            };
            Err(Error::Argument(format!(
                "--min-confidence means nothing for the model \"{model}\", which decides by itself.{hint}"
            )))
        }
        (Some(cut), None, Some(_)) => Ok(Cut::MinConfidence(cut)),
        (None, Some(share), _) => Ok(Cut::TopShare(share)),
        (None, None, Some(default)) => Ok(default),
        // Every positive score is a call.
        (None, None, None) => Ok(Cut::MinConfidence(0.0)),
    }
}

fn min_umi(args: &Args) -> Result<f64> {
    let range = Range { low: 0.0, high: f64::INFINITY, whole: false };
    Ok(args.number("min-umi", range)?.unwrap_or(0.0))
}

fn scored(args: &Args, model: &dyn Model) -> Result<(GuideFile, Scores)> {
    let control = settings::control(args, &model.info())?;
    let threads = match args.number("jobs", Range { low: 1.0, high: 1024.0, whole: true })? {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, |n| n.get() / 2),
    };
    let options = ReadOptions { layer: args.text("layer")?, batch: args.text("batch")?, ..ReadOptions::default() };
    let file = io::read(args.input(), &options)?;
    let counts = file.guide_counts()?;
    let scores = on_threads(threads, || model.score(&counts, &control, &Progress::default()))?;
    drop(counts);
    Ok((file, scores))
}

fn call_writers<'a>(
    file: &'a GuideFile,
    score: &'a [f64],
    calls: &'a Calls,
    set_probability: Option<&'a [f64]>,
) -> Vec<(&'static str, Writer<'a>)> {
    let cells = Called { file, score, calls, set_probability };
    let pairs = Called { file, score, calls, set_probability };
    vec![("cells", Box::new(move |out| cells.cells(out))), ("pairs", Box::new(move |out| pairs.pairs(out)))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{help, parse, Parsed};

    fn args(words: &[&str]) -> Args {
        let command = COMMANDS.iter().find(|command| command.name == words[0]).unwrap();
        match parse(command, &(command.options)(), words[1..].iter().map(Into::into).collect()) {
            Ok(Parsed::Args(args)) => args,
            _ => panic!("{words:?}"),
        }
    }

    #[test]
    fn the_default_model_is_in_the_registry() {
        assert!(models::find(DEFAULT_MODEL).is_ok());
    }

    #[test]
    fn every_model_is_listed() {
        for model in MODELS {
            let info = model.info();
            assert!(models_table().contains(&format!("\n{} ", info.name)));
            assert!(models_table().contains(info.about));
            let assign = &COMMANDS[1];
            assert!(help(assign, &(assign.options)()).contains(info.name));
        }
    }

    #[test]
    fn the_user_overrides_the_model() {
        let cut = |model: &str, words: &[&str]| {
            let info = models::find(model).unwrap().info();
            let words = [&["assign", "x"], words].concat();
            chosen_cut(&args(&words), model, default_cut(&info), &settings::own_thresholds(&info))
                .map_err(|error| error.to_string())
        };
        assert_eq!(cut("gauss", &[]), Ok(Cut::MinConfidence(0.8)));
        assert_eq!(cut("gauss", &["--min-confidence", "0.5"]), Ok(Cut::MinConfidence(0.5)));
        assert_eq!(cut("quantiles", &[]), Ok(Cut::TopShare(0.05)));
        assert_eq!(cut("quantiles", &["--quantile", "0.1"]), Ok(Cut::TopShare(0.1)));
        assert_eq!(cut("quantiles", &["--min-confidence", "0.1"]), Ok(Cut::MinConfidence(0.1)));
        assert_eq!(cut("umi", &[]), Ok(Cut::MinConfidence(0.0)));
        assert_eq!(cut("gauss", &["--fdr", "0.1"]), Ok(Cut::Fdr(0.1)));
        assert!(cut("gauss", &["--fdr=0.1", "--min-confidence=0.5"]).unwrap_err().contains("one of"));
        assert!(cut("gauss", &["--fdr", "1.5"]).is_err());
        for model in ["umi", "quantiles"] {
            assert!(cut(model, &["--fdr", "0.1"]).unwrap_err().contains("posterior"));
        }
        assert!(cut("umi", &["--min-confidence", "0.5"]).unwrap_err().contains("--umi-threshold"));
        assert!(cut("gauss", &["--quantile", "0.5"]).unwrap_err().contains("decided by --min-confidence"));
        assert!(cut("quantiles", &["--quantile=1", "--min-confidence=1"]).unwrap_err().contains("not both"));
    }

    #[test]
    fn a_setting_of_another_model_is_refused() {
        let control = |model: &str, words: &[&str]| {
            settings::control(&args(&[&["assign", "x"], words].concat()), &models::find(model).unwrap().info())
        };
        assert_eq!(control("umi", &["--umi-threshold", "3"]).unwrap().umi_threshold, 3.0);
        assert_eq!(control("gauss", &["--starts", "2"]).unwrap().starts, 2);
        assert!(control("gauss", &["--umi-threshold", "3"]).is_err());
        assert!(control("umi", &["--starts", "2"]).is_err());
        assert!(control("gauss", &["--starts", "0"]).is_err());
    }
}
