//! The words of the command line. What depends on the models comes from the registry of the core.
use clap::builder::PossibleValuesParser;
use clap::{value_parser, Arg, ArgAction, ArgGroup, Command};
use clap_complete::Shell;
use kaichi_core::io::Orientation;
use kaichi_core::models::{DefaultRule, ModelInfo, MODELS};
use std::path::PathBuf;

use crate::numbers::number;
use crate::settings;

/// The default of assign_guides() and score_guides() of the R package.
pub const DEFAULT_MODEL: &str = "poisson_gauss";

pub const FORMATS: [&str; 6] = ["h5ad", "h5mu", "csv", "cells", "crispat", "cellranger"];

const INPUTS: &str =
    "The guide counts: an .h5ad, .h5mu, 10x .h5, molecule_info.h5, a CSV or TSV, a folder with an .mtx or that of a \
                      run of Cell Ranger; several are one screen, whose cells are named sample_barcode";

const EXIT: &str = "\
Exit status:
  0    done
  1    the data are at fault: a file is missing, damaged or holds no counts
  2    the command line is at fault
  70   a defect of kaichi
  130  interrupted by Ctrl-C; an output is whole or not there";

const TABLES: &str = "\
Without --output, and with --format cells, the result is a CSV table with one row per cell, in input order: cell_barcode,
guide_id (the called guide with the highest confidence), umi_count, assignment_confidence, is_unassigned,
is_multi_infected, n_guides_detected, set_probability (that the cell carries exactly the guides called, for models whose
confidence is a posterior); of several files sample, and the columns of the sample sheet; and, where --guides or the input has
targets, target. An output ending in .csv gets one row per
called pair; .h5ad and .h5mu get counts, calls, scores and fits, as the R package writes them. What is missing is empty. A
name that ends in .csv.gz is compressed.";

pub fn command() -> Command {
    Command::new("kaichi")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Which CRISPR guides did each cell of a screen receive?")
        .after_help(EXIT)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .infer_subcommands(false)
        .subcommands([assign(), score(), decide(), compare(), models(), inspect(), completions(), man()])
}

fn assign() -> Command {
    Command::new("assign")
        .about("Decides which guides each cell received: scores every (cell, guide) pair and calls those that pass")
        .after_help(format!("{TABLES}\n\n{EXIT}"))
        .args(counts_input())
        .group(ArgGroup::new("source").args(["counts", "INPUT", "samples"]).required(true))
        .arg(model(|_| true))
        .args(rules(false))
        .arg(guides_option())
        .args(count_options())
        .args(settings::options(|_| true))
        .args(output_options(false))
        .args(fits_options())
        .args(common())
}

fn score() -> Command {
    Command::new("score")
        .about("Fits a model once and keeps its scores, so that kaichi decide can try many thresholds")
        .after_help(format!(
            "The output has the counts in X, the score of each stored count in the layer \"scores\", the fits in var (or, per \
             batch, in uns/kaichi/fits), and the model in uns/kaichi, as kaichi for Python keeps them; and, of posteriors, their log \
             odds in the layer \"log_odds\". What a model learns of the screen as a whole is in uns/kaichi/screen.\n\n{EXIT}"
        ))
        .args(counts_input())
        .group(ArgGroup::new("source").args(["counts", "INPUT", "samples"]).required(true))
        .arg(model(keeps_scores))
        .arg(guides_option())
        .args(count_options())
        .args(settings::options(keeps_scores))
        .arg(path("output", "FILE", "The .h5ad to write").short('o').required(true))
        .arg(flag("overwrite", "Replaces an output that is there"))
        .args(fits_options())
        .args(common())
}

fn decide() -> Command {
    Command::new("decide")
        .about("Turns the scores of kaichi score into calls")
        .after_help(format!("{TABLES}\n\n{EXIT}"))
        .args(input("scores", "The .h5ad of kaichi score, of assign_guides(output = ) in R, or of kaichi for Python"))
        .group(ArgGroup::new("source").args(["scores", "INPUT"]).required(true))
        .args(rules(true))
        .arg(guides_option())
        .args(output_options(true))
        .args(fits_options())
        .args(common())
}

fn compare() -> Command {
    Command::new("compare")
        .about("Says how far two sets of calls agree")
        .after_help(format!(
            "Either may be an .h5ad with the layer \"assigned\" (of kaichi in R, Python or here), a CSV of called pairs (cell_barcode \
             or cell, and guide_id or gRNA: of kaichi or crispat), or the protospacer_calls_per_cell.csv of Cell Ranger or its \
             folder. Jaccard is the share of what both have in what either has.\n\n{EXIT}"
        ))
        .arg(Arg::new("A").required(true).value_parser(value_parser!(PathBuf)).help("The first calls"))
        .arg(Arg::new("B").required(true).value_parser(value_parser!(PathBuf)).help("The second calls"))
        .arg(
            path("output", "FILE", "CSV of the pairs that only one has: cell_barcode, guide_id, only_in (a or b)").short('o'),
        )
        .arg(flag("overwrite", "Replaces an output that is there"))
        .args(common())
}

fn models() -> Command {
    Command::new("models").about("Lists the models and when to use each").after_help(EXIT)
}

fn inspect() -> Command {
    Command::new("inspect")
        .about("Says what a file or folder is, its size, its modalities and layers, and the range of its counts")
        .after_help(EXIT)
        .arg(
            Arg::new("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("An .h5ad, .h5mu or 10x .h5, an .mtx, or the folder of one"),
        )
}

fn completions() -> Command {
    Command::new("completions")
        .about("Writes the completions of a shell to standard output")
        .after_help(
            "bash: kaichi completions bash > ~/.local/share/bash-completion/completions/kaichi\n\
             zsh:  kaichi completions zsh > a folder of $fpath, as _kaichi\n\
             fish: kaichi completions fish > ~/.config/fish/completions/kaichi.fish",
        )
        .arg(Arg::new("SHELL").required(true).value_parser(value_parser!(Shell)))
}

fn man() -> Command {
    Command::new("man")
        .about("Writes the manual page to standard output: kaichi man | man -l -")
        .arg(Arg::new("COMMAND").help("That of one command, as in kaichi man assign"))
}

/// The counts: one file or folder, or several, which are one screen.
fn counts_input() -> [Arg; 3] {
    let [option, place] = input("counts", INPUTS);
    [
        option.num_args(1..),
        place.num_args(1..),
        path(
            "samples",
            "SHEET",
            "CSV with the columns sample and path, a file or folder of counts each; other columns become columns of the cells",
        ),
    ]
}

/// The input, as an option or by its place.
fn input(option: &'static str, about: &'static str) -> [Arg; 2] {
    [
        path(option, "FILE", about),
        Arg::new("INPUT").value_parser(value_parser!(PathBuf)).help(format!("The same as --{option}")),
    ]
}

fn path(name: &'static str, value: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(about)
}

fn flag(name: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(about)
}

fn model(runs: fn(&ModelInfo) -> bool) -> Arg {
    Arg::new("model")
        .long("model")
        .value_name("NAME")
        .help(format!("One of {}; see kaichi models [default: {DEFAULT_MODEL}]", names(runs)))
}

/// Numbers are checked by [`crate::numbers`], which says their range as the R package does.
pub fn numeric(name: &'static str, value: &'static str, about: impl Into<clap::builder::StyledStr>) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_negative_numbers(true).help(about)
}

fn rules(later: bool) -> Vec<Arg> {
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
    let (min_confidence, quantile) = match later {
        true => (
            format!(
                "Calls have a score of at least this, 0 to 1 [default: that of the model, {min_confidence}; kaichi for Python has 0.9]"
            ),
            format!(" [default: {quantile}]"),
        ),
        false => (
            format!(
                "Calls have a score of at least this, 0 to 1. Not for {single}, which decide by themselves \
                 [default: {min_confidence}]"
            ),
            format!(" [default: {quantile}]"),
        ),
    };
    let mut options = vec![
        numeric("min-confidence", "X", min_confidence),
        numeric(
            "min-log-odds",
            "X",
            format!(
                "Calls have a posterior whose log odds, ln(p / (1 - p)), are at least this. Unlike --min-confidence it tells apart \
                 posteriors that round to 1. For {}",
                names(is_posterior)
            ),
        ),
        numeric("quantile", "Q", format!("Per guide, the share of the cells with it that is called, 0 to 1{quantile}")),
        numeric(
            "fdr",
            "X",
            format!(
                "The largest set of calls whose expected share of false pairs is at most this, 0 to 1, however small. For {}",
                names(is_posterior)
            ),
        ),
        numeric("min-umi", "N", "Calls with fewer UMIs are dropped, whatever the model [default: 0]"),
    ];
    if later {
        let by = Arg::new("fdr-by")
            .long("fdr-by")
            .value_name("UNIT")
            .value_parser(PossibleValuesParser::new(["overall", "guide"]));
        options.push(
            by.requires("fdr")
                .help("Whether --fdr holds over all calls or over those of each guide [default: overall]"),
        );
    }
    options
}

fn count_options() -> Vec<Arg> {
    let batched = names(|info| info.uses_batch);
    vec![
        Arg::new("batch")
            .long("batch")
            .value_name("COLUMN")
            .help(format!(
                "Column of obs, or of the sample sheet, with the batch of each cell; barcode_suffix for the number at the end of the \
                 barcode, as cellranger aggr writes it. Of several files the sample, if not said. Used by {batched}"
            )),
        Arg::new("layer").long("layer").value_name("NAME").help("Layer with the raw UMI counts [default: X]"),
        Arg::new("modality").long("modality").value_name("NAME").help("Of an .h5mu: the modality with the guides"),
        Arg::new("feature-type")
            .long("feature-type")
            .value_name("TYPE")
            .help("Which features are guides, where the file says the type of each; found if not said"),
        Arg::new("orientation")
            .long("orientation")
            .value_name("WHICH")
            .value_parser(PossibleValuesParser::new(Orientation::NAMES))
            .help("Of an .mtx or a wide table: what its rows and columns are"),
        path("features", "FILE", "Of an .mtx: the file that names its features, where it is not found beside it"),
        path("barcodes", "FILE", "Of an .mtx: the file that names its cells"),
        flag("union", "Of several files: takes all guides, where the files do not have the same"),
        flag("no-batch", "Of several files: does not take the sample as batch").conflicts_with("batch"),
        Arg::new("params").long("params").value_name("JSON|@FILE").help(
            "Settings of the models as JSON, as in {\"starts\": 4, \"umi_threshold\": 3}, or @ and a file with it; an option of \
             its own goes first",
        ),
    ]
}

fn output_options(in_place: bool) -> Vec<Arg> {
    let mut options = vec![
        path("output", "FILE", "Where the calls go; the end of its name says how: .h5ad, .h5mu, .csv or .csv.gz; without an end, a folder as Cell Ranger's crispr_analysis")
            .short('o'),
        Arg::new("format")
            .long("format")
            .value_name("FORMAT")
            .value_parser(PossibleValuesParser::new(FORMATS))
            .help("What to write, whatever the name: cells has one row per cell, csv and crispat one per called pair"),
        path("rna", "FILE", "For .h5mu: an .h5ad or .h5mu whose modalities go into the output, too"),
        flag("overwrite", "Replaces outputs that are there"),
    ];
    if in_place {
        options.push(
            flag("in-place", "Replaces the scores file by the calls").conflicts_with_all(["output", "format", "rna"]),
        );
    }
    options
}

fn guides_option() -> Arg {
    path(
        "guides",
        "TABLE",
        "The guide table of the library: CSV or TSV, gzipped or not, with guide_id and any of target, construct, type and sequence; \
         every guide of the counts must be in it. Its columns go into var of an .h5ad, the target of each call into tables and obs",
    )
}

fn fits_options() -> [Arg; 2] {
    let whole = names(is_of_screen);
    [
        path("fits", "FILE", "CSV of the fits: parameters, a status in words, and what the calls are worth"),
        path("screen", "FILE", "")
            .help(format!("CSV with one row: what the model learns of the screen as a whole. For {whole}")),
    ]
}

fn common() -> [Arg; 3] {
    [
        Arg::new("threads")
            .long("threads")
            .value_name("N")
            .value_parser(value_parser!(u16).range(0..=1024))
            .default_value("0")
            .help("Worker threads; 0 is half of the logical cores. Results do not depend on it"),
        flag("quiet", "Says nothing but errors").short('q').conflicts_with("verbose"),
        flag("verbose", "Says more: times, threads and the threshold").short('v'),
    ]
}

pub fn keeps_scores(info: &ModelInfo) -> bool {
    info.rule != DefaultRule::SingleStage
}

pub fn is_posterior(info: &ModelInfo) -> bool {
    info.confidence == "posterior" && keeps_scores(info)
}

/// Whether the model learns something of the screen as a whole.
pub fn is_of_screen(info: &ModelInfo) -> bool {
    info.unit == "screen"
}

/// The names of the models for which `which` holds.
pub fn names(which: impl Fn(&ModelInfo) -> bool) -> String {
    let infos = MODELS.iter().map(|model| model.info());
    infos.filter(|info| which(info)).map(|info| info.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        command().debug_assert();
    }

    #[test]
    fn the_default_model_is_in_the_registry() {
        assert!(kaichi_core::models::find(DEFAULT_MODEL).is_ok());
    }

    #[test]
    fn help_names_every_model_and_the_exit_codes() {
        let help = assign().render_long_help().to_string();
        for model in MODELS {
            assert!(help.contains(model.info().name));
        }
        for code in ["\n  0 ", "\n  1 ", "\n  2 ", "\n  70 ", "\n  130 "] {
            assert!(help.contains(code), "{code:?}");
        }
    }
}
