//! Calls from file to file against calls in memory.
use std::path::Path;

use kaichi_core::decide::{decide, set_probability, Calls, Cut, Rule};
use kaichi_core::diagnose::diagnose;
use kaichi_core::fit::Column;
use kaichi_core::io::h5ad::{scores, write};
use kaichi_core::io::{self, h5mu, GuideFile, ReadOptions};
use kaichi_core::models::{self, Control, DefaultRule};
use kaichi_core::run::{on_threads, Progress};
use kaichi_core::simulate::{simulate, Screen};
use kaichi_core::stream::{assign, stored_screen, Job, Streamed};
use kaichi_core::{Error, Result};

mod folder;
use folder::Folder;

/// What is in it, sorted.
fn names(folder: &Folder) -> Vec<String> {
    let names = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn screen(n_cells: usize, n_guides: usize, ambient: f64) -> GuideFile {
    let mut settings = Screen::named("easy").unwrap();
    settings.n_cells = n_cells;
    settings.n_guides = n_guides;
    settings.set("ambient_mean", &[ambient]).unwrap();
    let sim = on_threads(2, || simulate(&settings, 3, &Progress::default())).unwrap();
    GuideFile {
        indptr: sim.indptr,
        guides: sim.guide,
        counts: sim.count,
        cell_names: (0..n_cells).map(|cell| format!("cell {cell}")).collect(),
        guide_names: (0..n_guides).map(|guide| format!("guide {guide}")).collect(),
        ..GuideFile::default()
    }
}

/// The counts, without calls, and a column of each table.
fn content(file: &GuideFile) -> write::Content<'_> {
    let column =
        |n: usize| vec![write::Stored::new("number".into(), Column::Real((0..n).map(|at| at as f64).collect()))];
    write::Content {
        cells: &file.cell_names,
        guides: &file.guide_names,
        matrices: write::Block {
            starts: &file.indptr,
            guides: &file.guides,
            counts: &file.counts,
            scores: &[],
            log_odds: &[],
            called_starts: &[],
            called: &[],
        },
        obs: column(file.cell_names.len()),
        var: column(file.guide_names.len()),
        notes: &[],
        fits: None,
        screen: None,
    }
}

/// An .h5ad with columns that are not of earlier calls, which would be replaced.
fn write_input(path: &Path, file: &GuideFile) {
    write::write(path, true, None, content(file)).unwrap();
    let written = hdf5::File::open_rw(path).unwrap();
    for table in ["obs", "var"] {
        written.group(table).unwrap().delete_attr("kaichi-columns").unwrap();
    }
}

fn run(input: &Path, output: &Path, model: &str, rule: Rule, threads: usize) -> Result<Streamed> {
    let (control, model) = (Control::default(), models::find(model)?);
    let job = Job { input, layer: None, output, overwrite: true, model, control: &control, rule, notes: &[] };
    on_threads(threads, || assign(&job, &Progress::default()))
}

fn values<T: hdf5::H5Type>(file: &hdf5::File, name: &str) -> Vec<T> {
    file.dataset(name).unwrap().read_raw().unwrap()
}

/// NaN is the same as NaN.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn check(read: &GuideFile, output: &Path, streamed: &Streamed, model: &str, rule: Rule) {
    let model = models::find(model).unwrap();
    let counts = read.guide_counts().unwrap();
    let control = Control { log_odds: true, ..Control::default() };
    let scores = on_threads(2, || model.score(&counts, &control, &Progress::default())).unwrap();
    let calls: Calls = on_threads(2, || decide(&counts, &scores, &rule)).unwrap();
    let posterior = model.info().confidence == "posterior";
    let single_stage = matches!(model.info().rule, DefaultRule::SingleStage);
    let per_guide = scores.fits.columns[0].0 == "guide";
    let status = if per_guide { scores.fits.texts("status") } else { vec![] };
    let worth = diagnose(&counts, &scores.score, &calls, posterior, &status);
    assert_eq!(format!("{:?}", streamed.fits), format!("{:?}", scores.fits));
    assert_eq!(format!("{:?}", streamed.worth), format!("{worth:?}"));
    assert_eq!(streamed.n_cells, read.cell_names.len());

    let file = hdf5::File::open(output).unwrap();
    assert_eq!(values::<i32>(&file, "X/indptr"), read.indptr);
    assert_eq!(values::<i32>(&file, "X/indices"), read.guides);
    assert_eq!(values::<f64>(&file, "X/data"), read.counts);
    let called: Vec<i32> = calls.pairs.iter().map(|&at| read.guides[at]).collect();
    assert!(called.len() > read.cell_names.len() / 4);
    assert_eq!(values::<i32>(&file, "layers/assigned/indices"), called);
    let starts: Vec<i32> = calls.indptr.iter().map(|&at| at as i32).collect();
    assert_eq!(values::<i32>(&file, "layers/assigned/indptr"), starts);
    assert_eq!(file.link_exists("layers/scores"), !single_stage);
    assert_eq!(file.link_exists("uns/kaichi/fits"), !per_guide);
    let best = |none: i32, f: &dyn Fn(usize) -> i32| calls.best.iter().map(|at| at.map_or(none, f)).collect::<Vec<_>>();
    if !single_stage {
        assert_eq!(bits(&values(&file, "layers/scores/data")), bits(&scores.score));
        assert_eq!(values::<i32>(&file, "layers/scores/indices"), read.guides);
        assert_eq!(values::<i32>(&file, "layers/scores/indptr"), read.indptr);
    }
    assert_eq!(file.link_exists("obs/set_probability"), posterior);
    if posterior {
        let sets = on_threads(2, || Ok(set_probability(&counts, &scores.score, &calls))).unwrap();
        assert_eq!(bits(&values(&file, "obs/set_probability")), bits(&sets));
    }
    assert_eq!(values::<i32>(&file, "obs/guide_id/codes"), best(-1, &|at| read.guides[at]));
    assert_eq!(values::<i32>(&file, "obs/guide_identity/codes"), best(-1, &|at| read.guides[at]));
    assert_eq!(values::<i32>(&file, "obs/umi_count/values"), best(0, &|at| read.counts[at] as i32));
    let none: Vec<bool> = calls.best.iter().map(Option::is_none).collect();
    assert_eq!(values::<bool>(&file, "obs/umi_count/mask"), none);
    assert_eq!(values::<bool>(&file, "obs/is_unassigned"), none);
    let confidence: Vec<f64> = calls.best.iter().map(|at| at.map_or(f64::NAN, |at| scores.score[at])).collect();
    assert_eq!(bits(&values(&file, "obs/assignment_confidence")), bits(&confidence));
    // The columns of the input.
    let numbers: Vec<f64> = (0..read.cell_names.len()).map(|at| at as f64).collect();
    assert_eq!(values::<f64>(&file, "obs/number"), numbers);
    assert_eq!(values::<f64>(&file, "var/number"), numbers[..read.guide_names.len()]);
}

/// More than one block of cells, and of counts.
#[test]
fn blocks_leave_no_trace() {
    let folder = Folder::new("blocks");
    let (input, output) = (folder.file("in.h5ad"), folder.file("out.h5ad"));
    let file = screen(70_000, 40, 80.0);
    assert!(file.counts.len() > (1 << 20) + (1 << 18), "{}", file.counts.len());
    write_input(&input, &file);
    let read = on_threads(2, || io::read(&input, &ReadOptions::default())).unwrap();
    assert_eq!((&read.counts, &read.cell_names), (&file.counts, &file.cell_names));

    let cuts = [
        ("poisson_gauss", Cut::MinConfidence(0.8)),
        ("poisson_gauss", Cut::Fdr(0.01)),
        ("poisson_gauss", Cut::MinLogOdds(1.5)),
        ("gauss", Cut::MinConfidence(0.8)),
        ("umi", Cut::MinConfidence(0.0)),
        ("ratio", Cut::MinConfidence(0.0)),
    ];
    for (threads, (model, cut)) in (1..).zip(cuts) {
        let rule = Rule { cut, min_umi: 2.0 };
        let streamed = run(&input, &output, model, rule, threads).unwrap();
        check(&read, &output, &streamed, model, rule);
    }
    assert_eq!(names(&folder), ["in.h5ad", "out.h5ad"]);
}

/// Models and rules that need all counts at once, in two blocks of cells.
#[test]
fn whole_matrices_are_written_in_blocks() {
    let folder = Folder::new("whole");
    let (input, output) = (folder.file("in.h5ad"), folder.file("out.h5ad"));
    write_input(&input, &screen(70_000, 12, 2.0));
    let read = on_threads(2, || io::read(&input, &ReadOptions::default())).unwrap();
    let cuts = [
        ("quantiles", Cut::TopShare(0.4)),
        ("poisson", Cut::MinConfidence(0.8)),
        ("gauss", Cut::FdrPerGuide(0.01)),
        ("neg_binomial", Cut::MinLogOdds(2.5)),
        ("beta2", Cut::MinConfidence(0.5)),
    ];
    for (model, cut) in cuts {
        let rule = Rule { cut, min_umi: 2.0 };
        let streamed = run(&input, &output, model, rule, 2).unwrap();
        check(&read, &output, &streamed, model, rule);
    }
}

/// The cut of a rate is that of the whole, for any rate.
#[test]
fn rates_call_the_same_pairs() {
    let folder = Folder::new("rates");
    let (input, output) = (folder.file("in.h5ad"), folder.file("out.h5ad"));
    write_input(&input, &screen(3000, 20, 20.0));
    let read = on_threads(2, || io::read(&input, &ReadOptions::default())).unwrap();
    let control = Control { log_odds: true, ..Control::default() };
    let rates = [0.0, 1e-100, 1e-12, 1e-4, 0.003, 0.05, 0.5].map(Cut::Fdr);
    let mut sizes = vec![];
    for cut in rates.into_iter().chain([-1.0, 2.0, 40.0, 100.0].map(Cut::MinLogOdds)) {
        for min_umi in [0.0, 4.0] {
            let rule = Rule { cut, min_umi };
            let streamed = run(&input, &output, "gauss", rule, 2).unwrap();
            let counts = read.guide_counts().unwrap();
            let scores = models::find("gauss").unwrap().score(&counts, &control, &Progress::default()).unwrap();
            let calls = on_threads(2, || decide(&counts, &scores, &rule)).unwrap();
            let n: usize = streamed.worth.iter().map(|guide| guide.n_cells_called).sum();
            assert_eq!(n, calls.pairs.len(), "{cut:?} {min_umi}");
            sizes.push(n);
            let file = hdf5::File::open(&output).unwrap();
            let starts: Vec<i32> = calls.indptr.iter().map(|&at| at as i32).collect();
            assert_eq!(values::<i32>(&file, "layers/assigned/indptr"), starts);
        }
    }
    sizes.sort_unstable();
    sizes.dedup();
    assert!(sizes.len() > 8, "{sizes:?}");
}

#[test]
fn what_cannot_be_finished_leaves_nothing() {
    let folder = Folder::new("nothing");
    let (input, output) = (folder.file("in.h5ad"), folder.file("out.h5ad"));
    let rule = Rule { cut: Cut::MinConfidence(0.8), min_umi: 0.0 };
    let mut file = screen(500, 10, 5.0);
    write::write(&input, false, None, content(&file)).unwrap();

    let (control, model) = (Control::default(), models::find("gauss").unwrap());
    let job = Job {
        input: &input,
        layer: None,
        output: &output,
        overwrite: false,
        model,
        control: &control,
        rule,
        notes: &[],
    };
    let progress = Progress::default();
    progress.cancel();
    assert_eq!(on_threads(1, || assign(&job, &progress)).err(), Some(Error::Interrupted));
    assert_eq!(names(&folder), ["in.h5ad"]);

    // The last cell has a name that was there before.
    file.cell_names[499] = file.cell_names[7].clone();
    write::write(&input, true, None, content(&file)).unwrap();
    let error = run(&input, &output, "umi", rule, 1).err().unwrap().to_string();
    assert!(error.contains("\"cell 7\" stands more than once in obs (rows 8 and 500)"), "{error}");
    assert_eq!(names(&folder), ["in.h5ad"]);
}

/// obsmap and varmap of an .h5mu lead back to the names.
#[test]
fn modalities_are_copied_and_mapped() {
    let folder = Folder::new("mudata");
    let (rna, first, second) = (folder.file("rna.h5ad"), folder.file("first.h5mu"), folder.file("second.h5mu"));
    let mut guides = screen(50, 4, 3.0);
    write::write(&rna, false, None, content(&screen(40, 7, 3.0))).unwrap();
    guides.cell_names = (10..60).map(|cell| format!("cell {cell}")).collect();
    h5mu::write(&first, false, Some(&rna), content(&guides)).unwrap();
    // The modality of calls is replaced, not kept twice.
    h5mu::write(&second, false, Some(&first), content(&guides)).unwrap();
    for path in [&first, &second] {
        let file = hdf5::File::open(path).unwrap();
        let texts = |name: &str| -> Vec<String> {
            values::<hdf5::types::VarLenUnicode>(&file, name).iter().map(|name| name.to_string()).collect()
        };
        let mut names = file.group("mod").unwrap().member_names().unwrap();
        names.sort();
        assert_eq!(names, ["guide", "rna"]);
        assert_eq!(texts("obs/_index").len(), 60);
        for (map, table) in [("obsmap", "obs"), ("varmap", "var")] {
            let all = texts(&format!("{table}/_index"));
            for name in ["guide", "rna"] {
                let own = texts(&format!("mod/{name}/{table}/_index"));
                let places = values::<u32>(&file, &format!("{map}/{name}"));
                assert_eq!(places.iter().filter(|&&place| place > 0).count(), own.len());
                for (name, &place) in all.iter().zip(&places) {
                    assert!(place == 0 || own[place as usize - 1] == *name);
                }
            }
        }
        assert_eq!(values::<f64>(&file, "mod/guide/X/data"), guides.counts);
        assert!(std::fs::read(path).unwrap().starts_with(b"MuData (format-version=0.1.0;creator=kaichi;"));
    }
}

/// Scores keep their log odds and what was learnt of the whole screen; older files have neither, and damaged ones are errors.
#[test]
fn scores_are_read_with_and_without_log_odds() {
    let folder = Folder::new("scores");
    let path = folder.file("scores.h5ad");
    let file = screen(60, 5, 2.0);
    let score: Vec<f64> = (0..file.counts.len()).map(|at| (at % 7) as f64 / 6.0).collect();
    let log_odds: Vec<f64> = (0..file.counts.len()).map(|at| at as f64 - 20.0).collect();
    let of_screen = vec![
        ("anything".to_owned(), Column::Real(vec![0.25])),
        ("n".to_owned(), Column::Integer(vec![None])),
        ("is_so".to_owned(), Column::Logical(vec![Some(true)])),
    ];
    let notes = [("model".to_owned(), write::Note::Text("gauss".to_owned()))];
    let save = |with: bool| {
        let mut content = content(&file);
        content.matrices.scores = &score;
        content.notes = &notes;
        if with {
            content.matrices.log_odds = &log_odds;
            content.screen = stored_screen(&of_screen);
        }
        write::write(&path, true, None, content).unwrap();
    };
    save(true);
    let read = scores::read(&path).unwrap();
    assert_eq!((&read.score, &read.log_odds, &read.screen), (&score, &log_odds, &of_screen));
    save(false);
    let read = scores::read(&path).unwrap();
    assert_eq!((read.score, read.log_odds, read.screen), (score.clone(), vec![], vec![]));

    let damaged = |name: &str, change: &dyn Fn(&hdf5::Dataset)| {
        save(true);
        let file = hdf5::File::open_rw(&path).unwrap();
        change(&file.dataset(name).unwrap());
        file.close().unwrap();
        scores::read(&path).unwrap_err().to_string()
    };
    let said = damaged("layers/log_odds/data", &|data| data.write_slice(&[f64::NAN], 2..3).unwrap());
    assert!(said.contains("value 3 of the log odds is NaN, which is no finite number"), "{said}");
    let said = damaged("layers/log_odds/indices", &|data| data.write_slice(&[4], 0..1).unwrap());
    assert!(said.contains("the log odds are not those of the counts in X"), "{said}");
    let said = damaged("layers/scores/data", &|data| data.write_slice(&[-0.5], 0..1).unwrap());
    assert!(said.contains("value 1 of the scores is -0.5, which is no number of 0 or more"), "{said}");
}
