//! The commands.
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{ArgMatches, Command};
use kaichi_core::decide::{Cut, Rule};
use kaichi_core::fit::{Column, Columns};
use kaichi_core::io::guide_table::{self, GuideTable};
use kaichi_core::io::samples::{self, Found, Input};
use kaichi_core::io::{self, h5ad, inspect, GuideFile, Orientation, ReadOptions};
use kaichi_core::models::{self, Control, DefaultRule, Model, ModelInfo, MODELS};
use kaichi_core::stream;
use kaichi_core::{Error, Result};

use crate::call_sets::{agreement, differences, read as read_call_set, Overlap};
use crate::cellranger;
use crate::cli::{is_of_screen, is_posterior, names, DEFAULT_MODEL};
use crate::numbers::{number, option, Range};
use crate::output::{print, Target};
use crate::report::{Report, Unfinished};
use crate::screen::{rule_notes, run_notes, Decision, Fits, LibraryTable, Screen};
use crate::settings;
use crate::tables::{self, Writer};

pub fn run(command: &Command, matches: &ArgMatches) -> Result<()> {
    match matches.subcommand() {
        Some(("assign", matches)) => assign(matches),
        Some(("score", matches)) => score(matches),
        Some(("decide", matches)) => decide(matches),
        Some(("compare", matches)) => compare(matches),
        Some(("models", _)) => print(&models_table()),
        Some(("inspect", matches)) => inspect_file(matches),
        Some(("completions", matches)) => completions(command, matches),
        Some(("man", matches)) => man(command, matches),
        _ => Err(Error::Argument("Give a command. See kaichi --help.".into())),
    }
}

// ---- assign, score, decide ----

fn assign(matches: &ArgMatches) -> Result<()> {
    let model = chosen_model(matches)?;
    let info = model.info();
    let mut control = settings::control(matches, &info)?;
    let rule = Rule { cut: chosen_cut(matches, &info, default_cut(&info))?, min_umi: min_umi(matches)? };
    let inputs = count_files(matches)?;
    let outputs = Outputs::new(matches, &inputs)?;
    outputs.check_screen(&info)?;
    let report = Report::new(matches);
    report.detail(format_args!("model {}, {} {}", info.name, rule.cut.name(), number(rule.cut.value())));
    let options = read_options(matches, None)?;
    let counts_only = options == ReadOptions { layer: options.layer, ..ReadOptions::default() };
    if let (Format::H5ad, Target::File(path), [input]) = (outputs.format, &outputs.calls, &inputs[..]) {
        if counts_only && !matches.contains_id("guides") && h5ad::is(input, options.layer) {
            return stream_assign(matches, input, path, model, &control, rule, &outputs, &report);
        }
    }
    control.log_odds = rule.cut.uses_log_odds();
    let (mut screen, template) = scored(matches, &inputs, model, &control, &report)?;
    let decision = report.watch("deciding", |_| screen.decide(rule))?;
    // Calls are written without them, whatever the rule: half of the file would be log odds.
    screen.log_odds = vec![];
    outputs.write(&screen, &decision, template.as_ref(), &report)
}

/// From .h5ad to .h5ad, a block of cells at a time.
#[allow(clippy::too_many_arguments)]
fn stream_assign(
    matches: &ArgMatches,
    input: &Path,
    output: &Path,
    model: &dyn Model,
    control: &Control,
    rule: Rule,
    outputs: &Outputs,
    report: &Report,
) -> Result<()> {
    let mut notes = run_notes(model.info().name, &settings::as_json(control, None), "assigned");
    notes.extend(rule_notes(&rule));
    let job = stream::Job {
        input,
        layer: text(matches, "layer"),
        output,
        overwrite: matches.get_flag("overwrite"),
        model,
        control,
        rule,
        notes: &notes,
    };
    report.say(format_args!("assigning {} by {}", input.display(), model.info().name));
    let unfinished = Unfinished::new();
    let done = report.watch("assigning", |progress| stream::assign(&job, progress))?;
    drop(unfinished);
    report.say(format_args!("wrote {}: {} cells, {} guides", output.display(), done.n_cells, done.guides.len()));
    let fits = Fits::named(done.fits, done.guides.len(), None)?;
    outputs.write_fits(&done.guides, &fits, &fits.with_worth(&done.worth), &done.screen)
}

fn score(matches: &ArgMatches) -> Result<()> {
    let model = chosen_model(matches)?;
    let info = model.info();
    if info.rule == DefaultRule::SingleStage {
        return Err(Error::Model(format!(
            "The model \"{0}\" decides in a single stage and has no scores to keep.\n  Use kaichi assign --model {0}.",
            info.name
        )));
    }
    let control = Control { log_odds: true, ..settings::control(matches, &info)? };
    let inputs = count_files(matches)?;
    let taken: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    let overwrite = matches.get_flag("overwrite");
    let path = matches.get_one::<PathBuf>("output");
    let Target::File(path) = Target::new(path.map(PathBuf::as_path), "output", overwrite, &taken)? else {
        return Err(Error::Argument("--output of kaichi score is an .h5ad: give the name of a file.".into()));
    };
    let outputs = Outputs {
        calls: Target::Stdout,
        format: Format::H5ad,
        fits: table_target(matches, "fits", &[&taken[..], &[&path]].concat())?,
        screen: table_target(matches, "screen", &[&taken[..], &[&path]].concat())?,
        overwrite,
        rna: None,
    };
    outputs.check_screen(&info)?;
    let report = Report::new(matches);
    let (screen, template) = scored(matches, &inputs, model, &control, &report)?;
    let unfinished = Unfinished::new();
    report.watch("writing", |_| screen.write_scores(&path, overwrite, template.as_deref()))?;
    drop(unfinished);
    report.say(format_args!("wrote {}", path.display()));
    outputs.write_fits(&screen.counts.guide_names, &screen.fits, &screen.fits.columns, &screen.whole)
}

fn decide(matches: &ArgMatches) -> Result<()> {
    let min_umi = min_umi(matches)?;
    let input = source(matches, "scores")?;
    let in_place = matches.get_flag("in-place");
    let outputs = Outputs::new(matches, std::slice::from_ref(&input))?;
    let report = Report::new(matches);
    let library = Library::read(matches)?;
    report.say(format_args!("reading {}", input.display()));
    let mut screen = report.watch("reading", |_| Screen::scored(h5ad::scores::read(&input)?))?;
    if let Some(library) = library {
        screen.table = library.of(&screen.counts, &report)?;
    }
    report.say(format_args!("{}, scores of {}", size(&screen.counts), screen.info.name));
    let cut = chosen_cut(matches, &screen.info, default_cut(&screen.info))?;
    outputs.check_screen(&screen.info)?;
    if outputs.screen.is_some() && screen.whole.is_empty() {
        return Err(Error::Format(format!(
            "The file \"{}\" keeps nothing of the screen as a whole, so there is nothing for --screen.\n  Write it again with kaichi \
             score, or leave --screen out.",
            input.display()
        )));
    }
    if cut.uses_log_odds() && screen.log_odds.is_empty() {
        report.say(
            "The file keeps no log odds: they are taken from the posteriors, so that those which round to 1 are all the same. \
             kaichi score keeps them.",
        );
    }
    let decision = report.watch("deciding", |_| screen.decide(Rule { cut, min_umi }))?;
    if in_place {
        return replace(&input, &screen, &decision, &outputs, &report);
    }
    outputs.write(&screen, &decision, Some(&input), &report)
}

/// The calls in the place of the scores they come from.
fn replace(input: &Path, screen: &Screen, decision: &Decision, outputs: &Outputs, report: &Report) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(input.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let new = input.with_file_name(name);
    let unfinished = Unfinished::new();
    let written = report.watch("writing", |_| screen.write_calls(decision, &new, false, false, Some(input)));
    let replaced = written.and_then(|()| unfinished.check()).and_then(|()| {
        std::fs::rename(&new, input)
            .map_err(|error| Error::File(format!("\"{}\" cannot be replaced: {error}.", input.display())))
    });
    if replaced.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    replaced?;
    report.say(format_args!("{}\nwrote {}", summary(screen, decision), input.display()));
    outputs.write_fits_of(screen, decision)
}

/// Reads and scores; also the input where it is an .h5ad, whose columns an output keeps.
fn scored(
    matches: &ArgMatches,
    inputs: &[PathBuf],
    model: &dyn Model,
    control: &Control,
    report: &Report,
) -> Result<(Screen, Option<PathBuf>)> {
    let info = model.info();
    let library = Library::read(matches)?;
    let ids = library.as_ref().map(Library::ids);
    let options = read_options(matches, ids.as_deref())?;
    inputs.iter().for_each(|input| report.say(format_args!("reading {}", input.display())));
    let mut counts = report.watch("reading", |_| match inputs {
        [one] => io::read(one, &options),
        several => samples::read(&named(several)?, &options),
    })?;
    counts.choices.iter().for_each(|choice| report.say(choice));
    if options.batch.is_none() && info.uses_batch && !matches.get_flag("no-batch") {
        if let Some(samples) = several_samples(&counts) {
            report.say("Taking the sample as --batch; --no-batch leaves it out.");
            counts.batch = Some(samples);
        }
    }
    let table = match library {
        Some(library) => library.of(&counts, report)?,
        None => LibraryTable::new(counts.facts.clone(), false),
    };
    report.say(format_args!("{}; scoring by {}", size(&counts), info.name));
    let started = Instant::now();
    let scores = report.watch("scoring", |progress| model.score(&counts.guide_counts()?, control, progress))?;
    report.detail(format_args!("scored in {:.2} s", started.elapsed().as_secs_f64()));
    let batches = counts.batches();
    let fits = Fits::named(scores.fits, counts.guide_names.len(), batches.as_deref())?;
    let params = settings::as_json(control, batches.as_deref());
    let screen = Screen {
        score: scores.score,
        log_odds: scores.log_odds,
        fits,
        whole: scores.screen,
        info,
        params,
        counts,
        table,
    };
    let template = match inputs {
        [one] => h5ad::is(one, options.layer).then(|| one.clone()),
        _ => None,
    };
    Ok((screen, template))
}

/// The files with the names of their samples.
fn named(paths: &[PathBuf]) -> Result<Vec<Input>> {
    let names = samples::names(paths)?;
    let input = |(sample, path): (String, &PathBuf)| Input { sample, path: path.clone(), columns: vec![] };
    Ok(names.into_iter().zip(paths).map(input).collect())
}

/// The sample of each cell, where there are several.
fn several_samples(counts: &GuideFile) -> Option<Vec<String>> {
    let samples: Vec<String> = counts.samples.column(samples::SAMPLE)?.iter().cloned().collect::<Option<_>>()?;
    (samples.len() > 1).then(|| counts.samples.of_cells(&samples))
}

/// The table of --guides, read before what takes long.
struct Library {
    path: PathBuf,
    table: GuideTable,
    choices: Vec<String>,
}

impl Library {
    fn ids(&self) -> Vec<String> {
        let ids = self.table.iter().find(|(name, _)| name == "guide_id").map(|(_, ids)| ids);
        ids.into_iter().flatten().flatten().cloned().collect()
    }

    fn read(matches: &ArgMatches) -> Result<Option<Self>> {
        let path = matches.get_one::<PathBuf>("guides").cloned();
        path.map(|path| guide_table::read(&path).map(|(table, choices)| Library { path, table, choices })).transpose()
    }

    fn of(&self, counts: &GuideFile, report: &Report) -> Result<LibraryTable> {
        let (rows, choices) = guide_table::rows_of(&self.path, &self.table, &counts.guide_names)?;
        self.choices.iter().chain(&choices).for_each(|choice| report.say(choice));
        Ok(LibraryTable::new(rows, true))
    }
}

fn read_options<'a>(matches: &'a ArgMatches, guides: Option<&'a [String]>) -> Result<ReadOptions<'a>> {
    let name_file = |name: &str| -> Result<Option<&str>> {
        let path = matches.get_one::<PathBuf>(name);
        path.map(|path| path.to_str().ok_or_else(|| Error::Argument(format!("--{name} is no text in UTF-8."))))
            .transpose()
    };
    Ok(ReadOptions {
        layer: text(matches, "layer"),
        batch: text(matches, "batch"),
        modality: text(matches, "modality"),
        feature_type: text(matches, "feature-type"),
        orientation: text(matches, "orientation").map(Orientation::new).transpose()?,
        features: name_file("features")?,
        barcodes: name_file("barcodes")?,
        guides,
        union: matches.get_flag("union"),
    })
}

fn size(counts: &GuideFile) -> String {
    format!("{} cells, {} guides, {} counts", counts.cell_names.len(), counts.guide_names.len(), counts.counts.len())
}

fn summary(screen: &Screen, decision: &Decision) -> String {
    let of = |kind: fn(usize) -> bool| decision.calls.indptr.windows(2).filter(|pair| kind(pair[1] - pair[0])).count();
    let (none, one, several) = (of(|n| n == 0), of(|n| n == 1), of(|n| n > 1));
    let n = screen.counts.cell_names.len();
    format!(
        "{n} cells: {one} with one guide, {several} with several, {none} unassigned ({} pairs)",
        decision.calls.pairs.len()
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    H5ad,
    H5mu,
    Pairs,
    Cells,
    Crispat,
    CellRanger,
}

/// Where the results of a command go, and how.
struct Outputs {
    calls: Target,
    format: Format,
    fits: Option<Target>,
    screen: Option<Target>,
    overwrite: bool,
    rna: Option<PathBuf>,
}

impl Outputs {
    fn new(matches: &ArgMatches, inputs: &[PathBuf]) -> Result<Self> {
        let overwrite = matches.get_flag("overwrite");
        let output = matches.get_one::<PathBuf>("output").map(PathBuf::as_path);
        let rna = matches.get_one::<PathBuf>("rna").cloned();
        let taken: Vec<&Path> = inputs.iter().map(PathBuf::as_path).chain(rna.as_deref()).collect();
        let format = match text(matches, "format") {
            Some("h5ad") => Format::H5ad,
            Some("h5mu") => Format::H5mu,
            Some("csv") => Format::Pairs,
            Some("crispat") => Format::Crispat,
            Some("cellranger") => Format::CellRanger,
            Some(_) => Format::Cells,
            None => told_by_name(output)?,
        };
        let calls = match (format, output) {
            (Format::CellRanger, Some(path)) => {
                cellranger::check(path, overwrite)?;
                Target::File(path.to_owned())
            }
            _ => Target::new(output, "output", overwrite, &taken)?,
        };
        let taken = [&taken[..], output.as_slice()].concat();
        let fits = table_target(matches, "fits", &taken)?;
        let screen = table_target(matches, "screen", &taken)?;
        let in_file = matches!(format, Format::H5ad | Format::H5mu | Format::CellRanger);
        if in_file && !matches!(calls, Target::File(_)) {
            return Err(Error::Argument("The format needs --output, the name of what to write.".into()));
        }
        if rna.is_some() && format != Format::H5mu {
            return Err(Error::Argument("--rna is for an --output that ends in .h5mu.".into()));
        }
        Ok(Outputs { calls, format, fits, screen, overwrite, rna })
    }

    /// `template` is the .h5ad the counts come from.
    fn write(&self, screen: &Screen, decision: &Decision, template: Option<&PathBuf>, report: &Report) -> Result<()> {
        report.say(summary(screen, decision));
        let writer: Writer = match (self.format, &self.calls) {
            (Format::H5ad | Format::H5mu, Target::File(path)) => {
                let as_h5mu = self.format == Format::H5mu;
                let other = if as_h5mu { self.rna.as_deref() } else { template.map(PathBuf::as_path) };
                let unfinished = Unfinished::new();
                report.watch("writing", |_| screen.write_calls(decision, path, as_h5mu, self.overwrite, other))?;
                drop(unfinished);
                report.say(format_args!("wrote {}", path.display()));
                return self.write_fits_of(screen, decision);
            }
            (Format::CellRanger, Target::File(path)) => {
                cellranger::write(path, screen, decision)?;
                report.say(format_args!("wrote {}", path.display()));
                return self.write_fits_of(screen, decision);
            }
            (Format::Pairs, _) => Box::new(|out| tables::pairs(screen, decision, &tables::PAIRS, out)),
            (Format::Crispat, _) => Box::new(|out| tables::pairs(screen, decision, &tables::CRISPAT, out)),
            _ => Box::new(|out| tables::cells(screen, decision, out)),
        };
        self.calls.write(&writer)?;
        if let Target::File(path) | Target::Stream(path) = &self.calls {
            report.say(format_args!("wrote {}", path.display()));
        }
        self.write_fits_of(screen, decision)
    }

    fn write_fits_of(&self, screen: &Screen, decision: &Decision) -> Result<()> {
        let fits = screen.fits.with_worth(&decision.worth);
        self.write_fits(&screen.counts.guide_names, &screen.fits, &fits, &screen.whole)
    }

    /// The tables of the fits and of the screen as a whole, where they are asked for.
    fn write_fits(&self, guides: &[String], fits: &Fits, columns: &[(String, Column)], whole: &Columns) -> Result<()> {
        if let Some(target) = &self.fits {
            let writer: Writer = Box::new(|out| tables::columns(fits.per_guide.then_some(guides), columns, out));
            target.write(&writer)?;
        }
        if let Some(target) = &self.screen {
            let writer: Writer = Box::new(|out| tables::columns(None, whole, out));
            target.write(&writer)?;
        }
        Ok(())
    }

    fn check_screen(&self, info: &ModelInfo) -> Result<()> {
        if self.screen.is_none() || is_of_screen(info) {
            return Ok(());
        }
        Err(Error::Argument(format!(
            "--screen is for models that learn of the screen as a whole ({}); \"{}\" does not.",
            names(is_of_screen),
            info.name
        )))
    }
}

/// The file of `--fits` or `--screen`.
fn table_target(matches: &ArgMatches, name: &'static str, taken: &[&Path]) -> Result<Option<Target>> {
    let Some(path) = matches.get_one::<PathBuf>(name) else { return Ok(None) };
    let other = if name == "screen" { matches.get_one::<PathBuf>("fits") } else { None };
    let taken: Vec<&Path> = taken.iter().copied().chain(other.map(PathBuf::as_path)).collect();
    Target::new(Some(path), name, matches.get_flag("overwrite"), &taken).map(Some)
}

fn told_by_name(output: Option<&Path>) -> Result<Format> {
    let Some(name) = output.and_then(Path::file_name) else { return Ok(Format::Cells) };
    let name = name.to_string_lossy().to_lowercase();
    if output.is_some_and(Path::is_dir) {
        return Ok(Format::CellRanger);
    }
    let ends = [(".h5ad", Format::H5ad), (".h5mu", Format::H5mu), (".csv", Format::Pairs), (".csv.gz", Format::Pairs)];
    if let Some((_, format)) = ends.into_iter().find(|(end, _)| name.ends_with(end)) {
        return Ok(format);
    }
    if output.is_some_and(|path| path == Path::new("-") || (path.exists() && !path.is_file())) {
        return Ok(Format::Cells);
    }
    if !name.contains('.') {
        return Ok(Format::CellRanger);
    }
    Err(Error::Argument(format!(
        "The format of \"{name}\" is not told by its name. Give --format, one of {}.",
        crate::cli::FORMATS.join(", ")
    )))
}

/// The files of the counts, by their option or their place, or the sample sheet.
fn count_files(matches: &ArgMatches) -> Result<Vec<PathBuf>> {
    if let Some(sheet) = matches.get_one::<PathBuf>("samples") {
        return match samples::find(sheet)? {
            Found::Several(_) => Ok(vec![sheet.clone()]),
            Found::One(..) => Err(Error::Format(format!(
                "The file \"{}\" is no sample sheet: it needs the columns sample and path, and one row for each file.",
                sheet.display()
            ))),
        };
    }
    let given = matches.get_many::<PathBuf>("counts").or_else(|| matches.get_many::<PathBuf>("INPUT"));
    Ok(given.into_iter().flatten().cloned().collect())
}

/// The input, by its option or its place: one of them is required.
fn source(matches: &ArgMatches, option: &str) -> Result<PathBuf> {
    let given = matches.get_one::<PathBuf>(option).or_else(|| matches.get_one::<PathBuf>("INPUT"));
    given.cloned().ok_or_else(|| Error::Internal("there is no input".into()))
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn chosen_model(matches: &ArgMatches) -> Result<&'static dyn Model> {
    models::find(text(matches, "model").unwrap_or(DEFAULT_MODEL))
}

/// None for a model that decides by itself.
fn default_cut(info: &ModelInfo) -> Option<Cut> {
    match info.rule {
        DefaultRule::SingleStage => None,
        DefaultRule::MinConfidence(cut) => Some(Cut::MinConfidence(cut)),
        DefaultRule::TopShare(share) => Some(Cut::TopShare(share)),
    }
}

/// The one rule that decides: the user's where there is one, else the default, which models that decide by themselves lack.
fn chosen_cut(matches: &ArgMatches, info: &ModelInfo, default: Option<Cut>) -> Result<Cut> {
    let model = info.name;
    let min_confidence = option(matches, "min-confidence", Range::SHARE)?;
    let quantile = option(matches, "quantile", Range::SHARE)?;
    let fdr = option(matches, "fdr", Range::SHARE)?;
    let min_log_odds = option(matches, "min-log-odds", Range::ANY)?;
    if [min_confidence, min_log_odds, quantile, fdr].into_iter().flatten().count() > 1 {
        return Err(Error::Argument("Give one of --min-confidence, --min-log-odds, --quantile and --fdr.".into()));
    }
    if quantile.is_some() && !matches!(info.rule, DefaultRule::TopShare(_)) {
        return Err(Error::Argument(format!(
            "--quantile is for models that rank; \"{model}\" is decided by {}.",
            if default.is_none() { "itself" } else { "--min-confidence" }
        )));
    }
    for (name, given) in [("fdr", fdr), ("min-log-odds", min_log_odds)] {
        if given.is_some() && !is_posterior(info) {
            return Err(Error::Argument(format!(
                "--{name} needs scores that are posterior probabilities; those of \"{model}\" are not.\n  The models that have them \
                 are {}.",
                names(is_posterior)
            )));
        }
    }
    if min_confidence.is_some() && default.is_none() {
        let hint = match settings::own_thresholds(info)[..] {
            [] => String::new(),
            ref options => format!(" Its threshold is --{}.", options.join(", --")),
        };
        return Err(Error::Argument(format!(
            "--min-confidence means nothing for the model \"{model}\", which decides by itself.{hint}"
        )));
    }
    let by_guide = matches.try_get_one::<String>("fdr-by").ok().flatten().is_some_and(|by| by == "guide");
    let fdr = fdr.map(|fdr| if by_guide { Cut::FdrPerGuide(fdr) } else { Cut::Fdr(fdr) });
    let min_log_odds = min_log_odds.map(Cut::MinLogOdds);
    let given = min_confidence.map(Cut::MinConfidence).or(min_log_odds).or(quantile.map(Cut::TopShare)).or(fdr);
    // Of a model that decides by itself, every positive score is a call.
    Ok(given.or(default).unwrap_or(Cut::MinConfidence(0.0)))
}

fn min_umi(matches: &ArgMatches) -> Result<f64> {
    Ok(option(matches, "min-umi", Range::UMIS)?.unwrap_or(0.0))
}

// ---- compare ----

fn compare(matches: &ArgMatches) -> Result<()> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let (a, b) = (path("A"), path("B"));
    let output = matches.get_one::<PathBuf>("output").map(PathBuf::as_path);
    let target = Target::new(output, "output", matches.get_flag("overwrite"), &[&a, &b])?;
    let report = Report::new(matches);
    let ((left, of_left), (right, of_right)) =
        report.watch("reading", |_| Ok((read_call_set(&a)?, read_call_set(&b)?)))?;
    of_left.iter().chain(&of_right).for_each(|choice| report.say(choice));
    let found = agreement(&left, &right);
    if output.is_some() {
        let rows = differences(&left, &right);
        let writer: Writer = Box::new(|out| {
            tables::records(out, &["cell_barcode", "guide_id", "only_in"], rows.iter().map(|row| row.to_vec()))
        });
        target.write(&writer)?;
    }
    let row = |name: &str, overlap: &Overlap| {
        let jaccard = match overlap.jaccard() {
            share if share.is_nan() => "-".to_owned(),
            share => format!("{share:.4}"),
        };
        [
            name.to_owned(),
            overlap.a.to_string(),
            overlap.b.to_string(),
            overlap.both.to_string(),
            overlap.either().to_string(),
            jaccard,
        ]
    };
    let rows = [
        ["", "a", "b", "both", "either", "jaccard"].map(str::to_owned),
        row("cells with a call", &found.cells),
        row("called pairs", &found.pairs),
    ];
    print(&format!(
        "a: {}\nb: {}\n\n{}\nOf the {} cells with a call in both, {} have the same guides, {} some the same, {} none.\n",
        a.display(),
        b.display(),
        aligned(&rows),
        found.cells.both,
        found.same,
        found.some,
        found.none
    ))
}

// ---- models, inspect ----

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
    let when: Vec<[String; 2]> =
        MODELS.iter().map(|model| [format!("  {}", model.info().name), model.info().when.to_owned()]).collect();
    format!("{}\nWhen to use which:\n{}", aligned(&rows), aligned(&when))
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn inspect_file(matches: &ArgMatches) -> Result<()> {
    let path = matches.get_one::<PathBuf>("FILE").cloned().unwrap_or_default();
    let mut facts = vec![(0, "file".to_owned(), path.display().to_string())];
    facts.extend(inspect::inspect(&path)?);
    let rows: Vec<[String; 2]> =
        facts.into_iter().map(|(depth, label, text)| [format!("{}{label}", "  ".repeat(depth)), text]).collect();
    print(&aligned(&rows))
}

// ---- completions, man ----

fn completions(command: &Command, matches: &ArgMatches) -> Result<()> {
    let Some(&shell) = matches.get_one::<clap_complete::Shell>("SHELL") else { return Ok(()) };
    let mut text = vec![];
    clap_complete::generate(shell, &mut command.clone(), "kaichi", &mut text);
    print(&String::from_utf8_lossy(&text))
}

fn man(command: &Command, matches: &ArgMatches) -> Result<()> {
    // By building, the names of the commands become "kaichi assign" and so on.
    let mut command = command.clone();
    command.build();
    let page = match text(matches, "COMMAND") {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            Error::Argument(format!("There is no command \"{name}\". The commands are {}.", names.join(", ")))
        })?,
    };
    let mut text = vec![];
    let page = clap_mangen::Man::new(page).manual("kaichi");
    page.render(&mut text).map_err(|error| Error::Internal(format!("the manual page cannot be made: {error}")))?;
    print(&String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn assign_words(words: &[&str]) -> ArgMatches {
        let words = [&["kaichi", "assign", "x.h5ad"], words].concat();
        command().try_get_matches_from(words).unwrap().subcommand_matches("assign").unwrap().clone()
    }

    #[test]
    fn every_model_is_listed() {
        for model in MODELS {
            let info = model.info();
            assert!(models_table().contains(&format!("\n{} ", info.name)));
            assert!(models_table().contains(info.about));
        }
    }

    #[test]
    fn the_user_overrides_the_model() {
        let cut = |model: &str, words: &[&str]| {
            let info = models::find(model).unwrap().info();
            chosen_cut(&assign_words(words), &info, default_cut(&info)).map_err(|error| error.to_string())
        };
        assert_eq!(cut("gauss", &[]), Ok(Cut::MinConfidence(0.8)));
        assert_eq!(cut("gauss", &["--min-confidence", "0.5"]), Ok(Cut::MinConfidence(0.5)));
        assert_eq!(cut("quantiles", &[]), Ok(Cut::TopShare(0.05)));
        assert_eq!(cut("quantiles", &["--quantile", "0.1"]), Ok(Cut::TopShare(0.1)));
        assert_eq!(cut("quantiles", &["--min-confidence", "0.1"]), Ok(Cut::MinConfidence(0.1)));
        assert_eq!(cut("umi", &[]), Ok(Cut::MinConfidence(0.0)));
        assert_eq!(cut("gauss", &["--fdr", "0.1"]), Ok(Cut::Fdr(0.1)));
        assert_eq!(cut("gauss", &["--min-log-odds", "-2.5"]), Ok(Cut::MinLogOdds(-2.5)));
        for wrong in ["inf", "nan", "much"] {
            assert!(cut("gauss", &["--min-log-odds", wrong]).unwrap_err().contains("give a number"), "{wrong}");
        }
        assert!(cut("gauss", &["--fdr=0.1", "--min-log-odds=3"]).unwrap_err().contains("one of"));
        assert!(cut("gauss", &["--fdr=0.1", "--min-confidence=0.5"]).unwrap_err().contains("one of"));
        assert!(cut("gauss", &["--min-confidence", "-1"]).unwrap_err().contains("from 0 to 1"));
        assert!(cut("gauss", &["--fdr", "1.5"]).is_err());
        for model in ["umi", "quantiles"] {
            assert!(cut(model, &["--fdr", "0.1"]).unwrap_err().contains("posterior"));
            assert!(cut(model, &["--min-log-odds", "1"]).unwrap_err().contains("are poisson_gauss, poisson, "));
        }
        assert!(cut("umi", &["--min-confidence", "0.5"]).unwrap_err().contains("--umi-threshold"));
        assert!(cut("gauss", &["--quantile", "0.5"]).unwrap_err().contains("decided by --min-confidence"));
        assert!(cut("quantiles", &["--quantile=1", "--min-confidence=1"]).unwrap_err().contains("one of"));
    }

    #[test]
    fn a_setting_of_another_model_is_refused() {
        let control =
            |model: &str, words: &[&str]| settings::control(&assign_words(words), &models::find(model).unwrap().info());
        assert_eq!(control("umi", &["--umi-threshold", "3"]).unwrap().umi_threshold, 3.0);
        assert_eq!(control("gauss", &["--starts", "2"]).unwrap().starts, 2);
        assert_eq!(control("gauss", &["--params", "{\"starts\": 3}", "--starts", "2"]).unwrap().starts, 2);
        assert!(control("gauss", &["--umi-threshold", "3"]).is_err());
        assert!(control("umi", &["--starts", "2"]).is_err());
        assert!(control("gauss", &["--starts", "0"]).is_err());
    }
}
