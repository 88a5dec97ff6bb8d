//! The binary on the files of tests/testthat/fixtures, which a source tarball may lack. That its results are those of R is
//! tested in tests/testthat/test-install_cli.R.
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const COLUMNS: &str =
    "cell_barcode,guide_id,umi_count,assignment_confidence,is_unassigned,is_multi_infected,n_guides_detected,set_probability";

fn fixture(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/testthat/fixtures").join(name);
    if !path.exists() {
        println!("skipped: no fixture {name}");
        return None;
    }
    Some(path.display().to_string())
}

fn kaichi(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kaichi")).args(words).stdin(Stdio::null()).output().unwrap()
}

/// What is on standard output of a command that says nothing else.
fn stdout(words: &[&str]) -> String {
    let quiet = ["assign", "score", "decide", "compare"].contains(&words[0]) && !words.contains(&"--help");
    let output = kaichi(&[words, if quiet { &["--quiet"][..] } else { &[] }].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and what stderr says; nothing may be on stdout.
fn refused(words: &[&str]) -> (i32, String) {
    let output = kaichi(words);
    assert!(output.stdout.is_empty(), "{words:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// An empty folder of its own for a test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The models that keep scores, by what `kaichi models` prints.
fn scoring_models() -> Vec<String> {
    let text = stdout(&["models"]);
    let rows = text.lines().skip(1).take_while(|line| !line.is_empty());
    rows.filter(|line| !line.contains("by itself")).map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// UMIs of guide g in cell c, as tools/fixtures/write_h5ad.py states them.
fn truth(c: usize, g: usize) -> usize {
    if (c + 2 * g) % 3 == 0 {
        (7 * c + 3 * g) % 11
    } else {
        0
    }
}

#[test]
fn umi_calls_are_those_of_the_counts() {
    for name in ["anndata-0.7.8-csr", "anndata-0.10.9-csc", "anndata-0.12.19-dense"] {
        let Some(path) = fixture(&format!("{name}.h5ad")) else { return };
        // The file has the genes of its guides, which are all the same.
        let mut expected = format!("{COLUMNS},target\n");
        for c in 0..12 {
            let called: Vec<usize> = (0..5).filter(|&g| truth(c, g) >= 4).collect();
            let most = called.iter().copied().min_by_key(|&g| (usize::MAX - truth(c, g), g));
            let call = most.map_or(",,".into(), |g| format!("guide-é{},{},1", g + 1, truth(c, g)));
            let flag = |yes| if yes { "TRUE" } else { "FALSE" };
            let (none, several) = (flag(called.is_empty()), flag(called.len() > 1));
            let target = if called.is_empty() { "" } else { "gene" };
            expected += &format!("cell_{},{call},{none},{several},{},,{target}\n", c + 1, called.len());
        }
        assert_eq!(stdout(&["assign", &path, "--model=umi", "--umi-threshold", "4"]), expected, "{name}");
    }
}

#[test]
fn assign_is_score_then_decide() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("assign_is_score_then_decide");
    let file = |name: &str| folder.join(name).display().to_string();
    let models = scoring_models();
    assert!(models.len() >= 5);
    for model in &models {
        let info = kaichi_core::models::find(model).unwrap().info();
        for batch in [&[][..], &["--batch", "lane_category"]] {
            let scores = file("scores.h5ad");
            stdout(
                &[
                    &[
                        "score",
                        "--counts",
                        &path,
                        "--model",
                        model,
                        "--output",
                        &scores,
                        "--overwrite",
                        "--threads",
                        "2",
                    ],
                    batch,
                ]
                .concat(),
            );
            for rule in [
                // The default of the model.
                &[][..],
                &["--min-confidence", "0.3"],
                &["--min-confidence", "0.5", "--min-umi", "3"],
                &["--fdr", "0.1"],
                &["--fdr", "1e-8"],
                &["--min-log-odds", "2.5"],
            ] {
                let by_posterior = rule.contains(&"--fdr") || rule.contains(&"--min-log-odds");
                if by_posterior && info.confidence != "posterior" {
                    continue;
                }
                let (a, b) = (file("a.csv"), file("b.csv"));
                let fits = |fits| ["--fits", fits, "--overwrite"];
                let assigned = stdout(&[&["assign", &path, "--model", model], batch, rule, &fits(&a)].concat());
                let decided = stdout(&[&["decide", "--scores", &scores], rule, &fits(&b)].concat());
                assert_eq!(assigned, decided, "{model} {batch:?} {rule:?}");
                let [a, b] = [a, b].map(|path| fs::read_to_string(path).unwrap());
                assert_eq!(a, b, "{model} {batch:?} {rule:?}");
                assert!(assigned.starts_with(COLUMNS));
                assert_eq!(assigned.lines().count(), 13);
            }
        }
    }
}

#[test]
fn decide_reads_the_output_of_assign_and_can_replace_it() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("decide_in_place");
    let file = folder.join("calls.h5ad").display().to_string();
    for batch in [&[][..], &["--batch", "lane"]] {
        stdout(&[&["assign", &path, "--model", "quantiles", "--output", &file, "--overwrite"], batch].concat());
        let rule = ["--quantile", "1"];
        let expected = stdout(&[&["assign", &path, "--model", "quantiles"], batch, &rule].concat());
        assert_eq!(stdout(&[&["decide", &file], &rule[..]].concat()), expected);
        assert_eq!(stdout(&["decide", &file, "--in-place", "--quantile", "1"]), "");
        assert_eq!(stdout(&[&["decide", &file], &rule[..]].concat()), expected);
        assert_eq!(entries(&folder), ["calls.h5ad"]);
        let pairs = folder.join("pairs.csv").display().to_string();
        stdout(&[&["assign", &path, "--model", "quantiles", "--output", &pairs], batch, &rule].concat());
        let table = stdout(&["compare", &file, &pairs]);
        assert!(table.contains("1.0000") && table.contains(" 0 some the same, 0 none."), "{table}");
        fs::remove_file(pairs).unwrap();
    }
}

/// A file with log odds is decided by them, one without by its posteriors, which is said; calls in the place of scores keep them.
#[cfg(unix)]
#[test]
fn log_odds_are_kept_by_score_and_missed_in_other_files() {
    let folder = folder("log_odds");
    let file = |name: &str| folder.join(name).display().to_string();
    let (input, scores, calls) = (file("in.h5ad"), file("scores.h5ad"), file("calls.h5ad"));
    write_screen(Path::new(&input), 800, 8);
    let has_log_odds = |path: &str| fs::read(path).unwrap().windows(8).any(|bytes| bytes == b"log_odds");
    stdout(&["assign", &input, "--model", "gauss", "--output", &calls]);
    stdout(&["score", &input, "--model", "gauss", "--output", &scores]);
    assert!(has_log_odds(&scores) && !has_log_odds(&calls));
    let decide = |path: &str, rule: &[&str]| {
        let output = kaichi(&[&["decide", path], rule].concat());
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for rule in [["--min-log-odds", "1"], ["--fdr", "0.05"], ["--min-confidence", "1"]] {
        let (of_scores, of_calls) = (decide(&scores, &rule), decide(&calls, &rule));
        assert_eq!(of_scores.0, of_calls.0, "{rule:?}");
        assert!(!of_scores.1.contains("keeps no log odds"));
        assert_eq!(of_calls.1.contains("keeps no log odds"), rule[0] != "--min-confidence", "{rule:?}");
    }
    // Posteriors that round to 1 are the same without log odds, and are not with them.
    let strict = ["--min-log-odds", "60"];
    let assigned = stdout(&[&["assign", &input, "--model", "gauss"], &strict[..]].concat());
    assert_eq!(decide(&scores, &strict).0, assigned);
    assert_ne!(decide(&calls, &strict).0, assigned);
    stdout(&["decide", &scores, "--in-place"]);
    assert!(has_log_odds(&scores));
    assert_eq!(decide(&scores, &strict).0, assigned);
}

/// What a model learns of the whole screen is a table of its own, through files too.
#[test]
fn the_screen_as_a_whole_has_its_own_table() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("whole_screen");
    let file = |name: &str| folder.join(name).display().to_string();
    let read = |name: &str| fs::read_to_string(file(name)).unwrap();
    let tables = |fits: &str, screen: &str| {
        ["--fits".to_owned(), file(fits), "--screen".to_owned(), file(screen), "--overwrite".to_owned()]
    };
    let with = |words: &[&str], tables: [String; 5]| {
        stdout(&[words, &tables.iter().map(String::as_str).collect::<Vec<_>>()].concat())
    };
    with(&["assign", &path, "--model", "ambient"], tables("fits.csv", "screen.csv"));
    let (fits, screen) = (read("fits.csv"), read("screen.csv"));
    assert_eq!(screen.lines().count(), 2);
    let shared: Vec<&str> = screen.lines().next().unwrap().split(',').collect();
    assert!(shared.contains(&"ambient_size") && shared.contains(&"converged"), "{shared:?}");
    let own: Vec<&str> = fits.lines().next().unwrap().split(',').collect();
    assert!(own.contains(&"efficiency") && !own.iter().any(|name| shared.contains(name)), "{own:?}");
    let (scores, calls) = (file("scores.h5ad"), file("calls.h5ad"));
    with(&["score", &path, "--model", "ambient", "--output", &scores], tables("a.csv", "b.csv"));
    assert_eq!(read("b.csv"), screen);
    with(&["decide", &scores, "--min-confidence=0.5", "--output", &calls], tables("c.csv", "d.csv"));
    assert_eq!((read("c.csv"), read("d.csv")), (fits, screen.clone()));
    with(&["decide", &calls], tables("e.csv", "f.csv"));
    assert_eq!(read("f.csv"), screen);

    let none = file("none.csv");
    let (code, said) = refused(&["assign", &path, "--model", "gauss", "--screen", &none]);
    assert!(code == 2 && said.contains("(ambient)") && said.contains("\"gauss\" does not"), "{said}");
    let (code, said) = refused(&["assign", &path, "--model", "ambient", "--screen", &none, "--fits", &none]);
    assert!(code == 2 && said.contains("another output"), "{said}");
    assert!(!entries(&folder).contains(&"none.csv".to_owned()));
}

#[test]
fn the_share_of_quantiles_can_be_chosen_later() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("quantiles");
    let scores = folder.join("scores.h5ad").display().to_string();
    stdout(&["score", &path, "--model", "quantiles", "--output", &scores]);
    let none = stdout(&["decide", &scores, "--quantile", "0"]);
    let all = stdout(&["decide", &scores, "--quantile", "1"]);
    assert!(none.lines().skip(1).all(|line| line.ends_with(",TRUE,FALSE,0,,")));
    assert_eq!(all, stdout(&["assign", &path, "--model", "quantiles", "--quantile", "1"]));
    let detected = |text: &str| text.lines().map(|line| line.rsplit(',').nth(2).map(str::to_owned)).collect::<Vec<_>>();
    let every_count = stdout(&["assign", &path, "--model", "umi", "--umi-threshold", "1"]);
    assert_eq!(detected(&all), detected(&every_count));
}

#[test]
fn settings_come_from_options_json_and_files() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("settings");
    let json = folder.join("params.json");
    fs::write(&json, "{\"umi_threshold\": 9}").unwrap();
    let at_json = format!("@{}", json.display());
    let expected = stdout(&["assign", &path, "--model", "umi", "--umi-threshold", "9"]);
    assert_ne!(expected, stdout(&["assign", &path, "--model", "umi"]));
    assert_eq!(expected, stdout(&["assign", &path, "--model", "umi", "--params", "{\"umi_threshold\": 9}"]));
    assert_eq!(expected, stdout(&["assign", &path, "--model", "umi", "--params", &at_json]));
    let (code, text) = refused(&["assign", &path, "--model", "umi", "--params", "{\"starts\": 4}"]);
    assert!(code == 2 && text.contains("mixture"), "{text}");
}

#[test]
fn every_format_is_written() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("formats");
    let file = |name: &str| folder.join(name).display().to_string();
    let assign = |more: &[&str]| stdout(&[&["assign", &path, "--model", "umi", "--umi-threshold", "4"], more].concat());
    let mut pairs = "cell_barcode,guide_id,umi_count,assignment_confidence,target\n".to_owned();
    let mut crispat = "cell,gRNA,UMI_counts\n".to_owned();
    for c in 0..12 {
        for g in (0..5).filter(|&g| truth(c, g) >= 4) {
            pairs += &format!("cell_{},guide-é{},{},1,gene\n", c + 1, g + 1, truth(c, g));
            crispat += &format!("cell_{},guide-é{},{}\n", c + 1, g + 1, truth(c, g));
        }
    }
    assert_eq!(assign(&["--output", &file("a.csv")]), "");
    assert_eq!(fs::read_to_string(file("a.csv")).unwrap(), pairs);
    assign(&["-o", &file("a.csv.gz")]);
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(file("a.csv.gz")).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, pairs);
    assert_eq!(assign(&["--format", "crispat"]), crispat);
    assign(&["-o", &file("cells.txt"), "--format", "cells"]);
    assert_eq!(fs::read_to_string(file("cells.txt")).unwrap(), assign(&[]));
    assign(&["-o", &file("a.h5ad")]);
    assign(&["-o", &file("a.h5mu"), "--rna", &file("a.h5ad")]);
    let from_h5mu =
        stdout(&["assign", &file("a.h5mu"), "--modality", "guide", "--model", "umi", "--umi-threshold", "4"]);
    assert_eq!(from_h5mu, assign(&[]));
    let facts = stdout(&["inspect", &file("a.h5mu")]);
    assert!(facts.contains("MuData") && facts.contains("rna") && facts.contains("layers/assigned"), "{facts}");
    let facts = stdout(&["inspect", &path]);
    assert!(facts.contains("AnnData") && facts.contains("layers/doubled") && facts.contains("(counts)"), "{facts}");
    let table = stdout(&["compare", &file("a.h5ad"), &file("a.csv"), "--output", &file("differences.csv")]);
    assert!(table.contains("called pairs"), "{table}");
    assert_eq!(fs::read_to_string(file("differences.csv")).unwrap(), "cell_barcode,guide_id,only_in\n");
}

#[test]
fn comparing_names_what_differs() {
    let folder = folder("compare");
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), text).unwrap();
        folder.join(name).display().to_string()
    };
    let a = file("a.csv", "cell,gRNA,UMI_counts\nc1,g,5\nc1,h,4\nc2,g,9\n");
    let b = file(
        "protospacer_calls_per_cell.csv",
        "cell_barcode,num_features,feature_call,num_umis\nc1,2,g|h,5|4\nc2,1,h,3\nc3,1,g,2\n",
    );
    let out = folder.join("d.csv").display().to_string();
    for other in [&b, &folder.display().to_string()] {
        let table = stdout(&["compare", &a, other, "-o", &out, "--overwrite"]);
        let row = |start: &str| {
            table.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("cells with"), "cells with a call 2 3 2 3 0.6667");
        assert_eq!(row("called pairs"), "called pairs 3 4 2 5 0.4000");
        assert_eq!(fs::read_to_string(&out).unwrap(), "cell_barcode,guide_id,only_in\nc2,g,a\nc2,h,b\nc3,g,b\n");
    }
    let cells = file("cells.csv", "cell_barcode,guide_id,n_guides_detected\nc1,g,2\n");
    let (code, text) = refused(&["compare", &a, &cells, "-q"]);
    assert!(code == 1 && text.starts_with("kaichi: error (format): "), "{text}");
}

#[test]
fn data_errors_have_code_1_and_leave_nothing() {
    let folder = folder("data_errors");
    for out in ["out.csv", "out.h5ad"] {
        let out = folder.join(out).display().to_string();
        for (name, kind) in [
            ("bad-negative.h5ad", "counts"),
            ("bad-name-twice.h5ad", "names"),
            // A table of counts, by its content.
            ("bad-text.h5ad", "counts"),
            ("bad-encoding.h5ad", "format"),
        ] {
            let Some(path) = fixture(name) else { return };
            for model in ["umi", "poisson"] {
                let (code, text) = refused(&["assign", &path, "--model", model, "--output", &out, "-q"]);
                assert!(code == 1 && text.contains(name), "{name}: {code} {text}");
                assert!(text.starts_with(&format!("kaichi: error ({kind}): ")), "{text}");
            }
        }
        let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
        let (code, text) = refused(&["assign", &path, "--batch", "none", "-o", &out, "-q"]);
        assert!(code == 1 && text.starts_with("kaichi: error (batch): "), "{text}");
        let (code, text) = refused(&["decide", &path, "-o", &out, "-q"]);
        assert!(code == 1 && text.starts_with("kaichi: error (format): "), "{text}");
        let (code, text) = refused(&["assign", "nowhere.h5ad", "-o", &out, "-q"]);
        assert!(code == 1 && text.starts_with("kaichi: error (file): "), "{text}");
    }
    assert_eq!(entries(&folder), [""; 0]);
}

#[test]
fn usage_errors_have_code_2() {
    let folder = folder("usage_errors");
    let input = folder.join("in.h5ad");
    fs::write(&input, "kept").unwrap();
    let input = input.display().to_string();
    let csv = folder.join("a.csv").display().to_string();
    let deep = folder.join("no/such/a.csv").display().to_string();
    // What clap refuses, and what kaichi does.
    for words in [
        &[][..],
        &["asign"],
        &["assign"],
        &["assign", "x.h5ad", "--modell", "umi"],
        &["score", "x.h5ad"],
        &["assign", "a", "--counts", "b"],
    ] {
        let (code, text) = refused(words);
        assert!(code == 2 && text.contains("Usage: kaichi"), "{words:?}: {code} {text}");
    }
    for (words, kind, says) in [
        (&["assign", "x.h5ad", "--model", "gaus"][..], "model", "\"gauss\""),
        (&["score", "x.h5ad", "--model", "umi", "-o", &csv], "model", "kaichi assign --model umi"),
        (&["assign", "x.h5ad", "--min-confidence", "2"], "argument", "from 0 to 1"),
        (&["assign", "x.h5ad", "--output", &deep], "argument", "no folder"),
        (&["assign", "x.h5ad", "--output", &csv, "--fits", &csv], "argument", "another output"),
        (&["assign", &input, "--output", &input, "--overwrite"], "argument", "the place of the input"),
        (&["assign", "x.h5ad", "--output", &input], "argument", "--overwrite"),
        (&["assign", "x.h5ad", "--fits", "/"], "argument", "folder"),
        (&["assign", "x.h5ad", "--output", &input, "--format", "cellranger"], "argument", "into a folder"),
        (&["assign", "x.h5ad", "--output", "a.txt"], "argument", "--format"),
        (&["assign", "x.h5ad", "--format", "h5ad"], "argument", "--output"),
        (&["assign", "x.h5ad", "--rna", "y.h5ad"], "argument", ".h5mu"),
        (&["man", "asign"], "argument", "assign"),
    ] {
        let (code, text) = refused(words);
        let start = format!("kaichi: error ({kind}): ");
        assert!(code == 2 && text.starts_with(&start) && text.contains(says), "{words:?}: {code} {text}");
    }
    assert_eq!(entries(&folder), ["in.h5ad"]);
    assert_eq!(fs::read_to_string(input).unwrap(), "kept");
}

#[test]
fn help_completions_and_manual() {
    assert_eq!(stdout(&["--version"]), format!("kaichi {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["models", "assign", "score", "decide", "compare", "inspect", "completions", "man"] {
        assert!(stdout(&["--help"]).contains(&format!("\n  {command} ")));
        let help = stdout(&[command, "--help"]);
        assert!(help.contains(&format!("\nUsage: kaichi {command}")), "{help}");
        assert!(stdout(&["man", command]).contains(&format!(".TH kaichi-{command} 1")));
    }
    for model in scoring_models() {
        assert!(stdout(&["assign", "--help"]).contains(&model), "{model}");
    }
    assert!(stdout(&["man"]).contains("130"));
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef kaichi"), ("fish", "complete -c kaichi")] {
        assert!(stdout(&["completions", shell]).contains(word), "{shell}");
    }
}

#[test]
fn what_is_said_goes_to_stderr() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let output = kaichi(&["assign", &path, "--model", "umi"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("12 cells, 5 guides") && said.contains("unassigned"), "{said}");
    // No bar, and no codes of a terminal.
    assert!(said.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{said:?}");
    let more = String::from_utf8(kaichi(&["assign", &path, "--model", "umi", "-v"]).stderr).unwrap();
    assert!(more.len() > said.len());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout(&["assign", &path, "--model", "umi"]));
}

/// A reader that stops is no error, and no panic.
#[test]
fn a_broken_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kaichi"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A simulated screen as .h5ad.
#[cfg(unix)]
fn write_screen(path: &Path, n_cells: usize, n_guides: usize) {
    use kaichi_core::io::h5ad::write::{write, Block, Content};
    let mut screen = kaichi_core::simulate::Screen::named("easy").unwrap();
    screen.n_cells = n_cells;
    screen.n_guides = n_guides;
    let made = kaichi_core::simulate::simulate(&screen, 1, &kaichi_core::run::Progress::default()).unwrap();
    let names = |what: &str, n: usize| (0..n).map(|at| format!("{what}{at}")).collect::<Vec<_>>();
    let content = Content {
        cells: &names("cell", made.cells.len()),
        guides: &names("guide", n_guides),
        matrices: Block {
            starts: &made.indptr,
            guides: &made.guide,
            counts: &made.count,
            scores: &[],
            log_odds: &[],
            called_starts: &[],
            called: &[],
        },
        obs: vec![],
        var: vec![],
        notes: &[],
        fits: None,
        screen: None,
    };
    // A command that another test starts meanwhile inherits HDF5's handle and its lock: the copy has neither.
    let locked = path.with_extension("locked");
    write(&locked, false, None, content).unwrap();
    fs::copy(&locked, path).unwrap();
    fs::remove_file(&locked).unwrap();
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing() {
    let folder = folder("ctrl_c");
    // Large enough to be at work for seconds.
    let input = folder.join("in.h5ad");
    write_screen(&input, 50_000, 400);
    let input = input.display().to_string();
    let out = folder.join("out.h5ad");
    for output in [&out, &folder.join("out.csv")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kaichi"))
            .args(["assign", &input, "--model", "neg_binomial", "--output"])
            .arg(output)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It listens from its first line on.
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        said.read_line(&mut text).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let started = std::time::Instant::now();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{text}");
        assert!(started.elapsed().as_secs() < 5);
        assert_eq!(entries(&folder), ["in.h5ad"]);
    }
}

/// A device is written to; renaming a file onto it would replace it.
#[cfg(unix)]
#[test]
fn devices_and_links_stay() {
    use std::os::unix::fs::FileTypeExt;
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("devices_and_links_stay");
    let link = folder.join("link.csv");
    fs::write(folder.join("real.csv"), "old").unwrap();
    std::os::unix::fs::symlink("real.csv", &link).unwrap();
    let link_text = link.display().to_string();
    stdout(&[
        "assign",
        &path,
        "--model",
        "umi",
        "-o",
        &link_text,
        "--overwrite",
        "--format",
        "cells",
        "--fits",
        "/dev/null",
    ]);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert!(fs::read_to_string(folder.join("real.csv")).unwrap().starts_with(COLUMNS));
    assert_eq!(entries(&folder), ["link.csv", "real.csv"]);
}

#[test]
fn what_the_reader_chose_is_said() {
    let Some(path) = fixture("mixed-csr.h5ad") else { return };
    let folder = folder("choices");
    let file = |name: &str| folder.join(name).display().to_string();
    let chosen = "features of the type \"CRISPR Guide Capture\" as guides";
    for command in [
        &["assign", &path, "--model", "umi"][..],
        &["assign", &path, "--model", "umi", "--output", &file("calls.h5ad")],
        &["score", &path, "--output", &file("scores.h5ad")],
    ] {
        let output = kaichi(command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains(chosen), "{said}");
    }
}

#[test]
fn folders_are_inspected_as_files_are() {
    let folder = folder("inspect_mtx");
    let write = |name: &str, lines: &[&str]| fs::write(folder.join(name), lines.join("\n") + "\n").unwrap();
    let inspect = || stdout(&["inspect", &folder.display().to_string()]);
    let says = |text: &str, label: &str, what: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{label}  ")));
        assert_eq!(line.and_then(|line| line.strip_prefix(label)).map(str::trim), Some(what), "{text}");
    };
    const HEAD: &str = "%%MatrixMarket matrix coordinate integer general";
    // 10x
    write("matrix.mtx", &[HEAD, "%", "3 2 3", "1 1 4", "2 1 1", "3 2 7"]);
    write("features.tsv", &["a\ta\tGene Expression", "g\tg\tCRISPR Guide Capture", "h\th\tCRISPR Guide Capture"]);
    write("barcodes.tsv", &["c1", "c2"]);
    let text = inspect();
    for (label, what) in [
        ("kind", "counts in Matrix Market format (.mtx)"),
        ("matrix file", "matrix.mtx, 3 x 2"),
        ("rows", "features"),
        ("cells", "2 (barcodes.tsv)"),
        ("features", "3 (features.tsv)"),
        ("feature types", "CRISPR Guide Capture (2), Gene Expression (1)"),
        ("matrix", "3 stored, 1 to 7 (counts)"),
    ] {
        says(&text, label, what);
    }
    assert_eq!(
        text,
        stdout(&["inspect", &folder.join("matrix.mtx").display().to_string()]).replace("/matrix.mtx\n", "\n")
    );
    // Parse, with values that are no counts, and cut short.
    for name in ["matrix.mtx", "features.tsv", "barcodes.tsv"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    write("count_matrix.mtx", &[&HEAD.replace("integer", "real"), "2 3 3", "1 1 0.5", "2 3 2"]);
    write("all_guides.csv", &["gene_id,gene_name,genome", ",g,hg38", ",h,hg38", ",i,hg38"]);
    write("cell_metadata.csv", &["bc_wells,sample", "c1,s", "c2,s"]);
    let text = inspect();
    says(&text, "rows", "cells");
    says(&text, "columns of cells", "bc_wells, sample");
    says(&text, "matrix", "2 stored (its head says 3: it is cut short or damaged), 0.5 to 2 (no counts: fractions)");
    // A square one.
    write("count_matrix.mtx", &[HEAD, "3 3 0"]);
    write("cell_metadata.csv", &["bc_wells,sample", "c1,s", "c2,s", "c3,s"]);
    says(&inspect(), "rows", "features or cells: it is square, so give --orientation");
    // Names of another run.
    write("cell_metadata.csv", &["bc_wells,sample", "c1,s"]);
    let (code, text) = refused(&["inspect", &folder.display().to_string()]);
    assert!(code == 1 && text.contains("do not belong together"), "{text}");
}

#[test]
fn targets_come_from_the_guide_table() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("guides");
    let file = |name: &str| folder.join(name).display().to_string();
    let table = file("guides.tsv");
    let rows: Vec<String> = (1..=6).rev().map(|g| format!("guide-é{g}\t{}", ["", "B", "A"][g % 3])).collect();
    fs::write(&table, format!("guide_id\ttarget\n{}\n", rows.join("\n"))).unwrap();
    let words = ["assign", &path, "--model", "umi", "--umi-threshold", "4", "--guides", &table];
    let text = stdout(&words);
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), format!("{COLUMNS},target"));
    let mut named = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let guide = fields[1].strip_prefix("guide-é").map(|g| g.parse::<usize>().unwrap());
        assert_eq!(fields[8], guide.map_or("", |g| ["", "B", "A"][g % 3]));
        named += usize::from(!fields[8].is_empty());
    }
    assert!(named > 3);
    let said = String::from_utf8(kaichi(&words).stderr).unwrap();
    assert!(said.contains("1 guide of `guides` not in the counts, left out: \"guide-é6\"."), "{said}");
    // Nothing is written for a table that lacks guides.
    fs::write(&table, "guide_id,target\nguide-é1,A\n").unwrap();
    let (code, text) = refused(&[&words[..], &["--output", &file("calls.h5ad")]].concat());
    assert!(code == 1 && text.contains("guide_id lacks 4 guides of the counts"), "{text}");
    assert_eq!(entries(&folder), ["guides.tsv"]);
}

#[test]
fn the_folder_of_cell_ranger_is_written_and_read_back() {
    let Some(path) = fixture("tenx.h5") else { return };
    let folder = folder("cellranger");
    let output = folder.join("crispr_analysis").display().to_string();
    let ours = folder.join("calls.csv").display().to_string();
    let assign = ["assign", "--counts", &path, "--model", "umi", "--umi-threshold", "4", "--quiet", "--output"];
    assert!(kaichi(&[&assign[..], &[&output, "--format", "cellranger"]].concat()).status.success());
    let read = |name: &str| fs::read_to_string(Path::new(&output).join(name)).unwrap();
    // Guide after guide, cells as they first occur in that.
    let mut cells: Vec<usize> = vec![];
    for g in 0..5 {
        let called = (0..12).filter(|&c| truth(c, g) >= 4);
        called.for_each(|c| {
            if !cells.contains(&c) {
                cells.push(c)
            }
        });
    }
    let mut expected = "cell_barcode,num_features,feature_call,num_umis\n".to_owned();
    for &c in &cells {
        let called: Vec<usize> = (0..5).filter(|&g| truth(c, g) >= 4).collect();
        let join = |text: &dyn Fn(usize) -> String| called.iter().map(|&g| text(g)).collect::<Vec<_>>().join("|");
        let (names, umis) = (join(&|g| format!("guide_{}", g + 1)), join(&|g| truth(c, g).to_string()));
        expected += &format!("cell_{},{},{names},{umis}\n", c + 1, called.len());
    }
    assert_eq!(read("protospacer_calls_per_cell.csv"), expected);
    let none = (0..12).filter(|&c| (0..5).all(|g| truth(c, g) == 0)).count();
    let summary = read("protospacer_calls_summary.csv");
    assert!(summary.contains(&format!("No guide molecules,{none},")), "{summary}");
    assert!(summary.contains(&format!("No confident call,{},", 12 - cells.len())), "{summary}");
    // It is not replaced unless that is said.
    let (code, said) = refused(&[&assign[..], &[&output, "--format", "cellranger"]].concat());
    assert!(code == 2 && said.contains("--overwrite"), "{code}: {said}");
    assert!(kaichi(&[&assign[..], &[&output, "--format", "cellranger", "--overwrite"]].concat()).status.success());
    // And the same calls in another form are the same to `compare`.
    assert!(kaichi(&[&assign[..], &[&ours]].concat()).status.success());
    let per_cell = format!("{output}/protospacer_calls_per_cell.csv");
    let differences = folder.join("differences.csv").display().to_string();
    stdout(&["compare", &ours, &per_cell, "--output", &differences]);
    assert_eq!(fs::read_to_string(differences).unwrap(), "cell_barcode,guide_id,only_in\n");
}

/// Cells and guides of a wide table.
fn table(folder: &Path, name: &str, guides: &[&str]) -> String {
    let mut text = format!("cell,{}\n", guides.join(","));
    for (cell, counts) in [("AAACCTGAGAAACC-1", [9, 0]), ("AAACCTGAGAAACG-1", [0, 8]), ("AAACCTGAGAAACT-1", [7, 9])] {
        text += &format!("{cell},{},{}\n", counts[0], counts[1]);
    }
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn several_files_are_one_screen() {
    let folder = folder("several");
    let (a, b) = (table(&folder, "a.csv", &["g", "h"]), table(&folder, "b.csv", &["g", "h"]));
    let cells = stdout(&["assign", "--counts", &a, &b, "--model", "umi"]);
    assert_eq!(cells.lines().count(), 7);
    assert!(cells.lines().next().unwrap().ends_with("set_probability,sample"));
    assert!(cells.contains("\nb_AAACCTGAGAAACG-1,h,8,1,FALSE,FALSE,1,,b\n"), "{cells}");
    let sheet = folder.join("sheet.csv").display().to_string();
    fs::write(&sheet, "sample,path,dose\na,a.csv,1\nb,b.csv,2\n").unwrap();
    let by_sheet = stdout(&["assign", "--samples", &sheet, "--model", "umi"]);
    assert!(by_sheet.contains("\nb_AAACCTGAGAAACG-1,h,8,1,FALSE,FALSE,1,,b,2\n"), "{by_sheet}");
    assert_eq!(by_sheet, stdout(&["assign", &sheet, "--model", "umi"]));
    let file = folder.join("calls.h5ad").display().to_string();
    stdout(&["assign", &a, &b, "--model", "umi", "--output", &file]);
    let again = stdout(&["assign", &file, "--model", "umi"]);
    let named: Vec<&str> = cells.lines().map(|line| line.rsplit_once(',').unwrap().0).collect();
    assert_eq!(again.lines().collect::<Vec<_>>(), named);
    // The sample is the batch of models that take one.
    let said = |words: &[&str]| {
        let output = kaichi(&[&["assign", "--counts", &a, &b, "--model", "poisson"], words].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&[]).contains("Taking the sample as --batch"));
    assert!(!said(&["--no-batch"]).contains("Taking the sample as --batch"));
    // Guides that differ.
    let c = table(&folder, "c.csv", &["g", "x"]);
    let (code, text) = refused(&["assign", "--counts", &a, &c, "--model", "umi", "-q"]);
    assert!(code == 1 && text.contains("lacks \"h\" and has \"x\" more"), "{text}");
    assert_eq!(stdout(&["assign", "--counts", &a, &c, "--model", "umi", "--union"]).lines().count(), 7);
    assert_eq!(refused(&["assign", "--samples", &a, "-q"]).0, 1);
}
