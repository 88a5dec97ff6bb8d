//! The binary on the files of tests/testthat/fixtures, which a source tarball may lack.
use std::fs;
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

fn stdout(words: &[&str]) -> String {
    let output = kaichi(words);
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
        let mut expected = format!("{COLUMNS}\n");
        for c in 0..12 {
            let called: Vec<usize> = (0..5).filter(|&g| truth(c, g) >= 4).collect();
            let most = called.iter().copied().min_by_key(|&g| (usize::MAX - truth(c, g), g));
            let call = most.map_or(",,".into(), |g| format!("guide-é{},{},1", g + 1, truth(c, g)));
            let flag = |yes| if yes { "TRUE" } else { "FALSE" };
            let (none, several) = (flag(called.is_empty()), flag(called.len() > 1));
            expected += &format!("cell_{},{call},{none},{several},{},\n", c + 1, called.len());
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
        for batch in [&[][..], &["--batch", "lane_category"]] {
            let info = kaichi_core::models::find(model).unwrap().info();
            for rule in [&[][..], &["--min-umi", "3"], &["--min-confidence", "0.3"], &["--fdr", "0.1"]] {
                if rule.contains(&"--fdr") && info.confidence != "posterior" {
                    continue;
                }
                let (scores, a, b) = (file("scores.csv"), file("a.csv"), file("b.csv"));
                let assigned = stdout(&[&["assign", &path, "--model", model, "--pairs", &a], batch, rule].concat());
                stdout(&[&["score", &path, "--model", model, "--out", &scores, "--jobs", "2"], batch].concat());
                let decided = stdout(&[&["decide", &scores, "--pairs", &b], rule].concat());
                assert_eq!(assigned, decided, "{model} {batch:?} {rule:?}");
                assert_eq!(
                    fs::read_to_string(a).unwrap(),
                    fs::read_to_string(b).unwrap(),
                    "{model} {batch:?} {rule:?}"
                );
                assert!(assigned.starts_with(COLUMNS));
                assert_eq!(assigned.lines().count(), 13);
            }
        }
    }
}

#[test]
fn the_share_of_quantiles_can_be_chosen_later() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("quantiles");
    let scores = folder.join("scores.csv").display().to_string();
    stdout(&["score", &path, "--model", "quantiles", "--out", &scores]);
    let none = stdout(&["decide", &scores, "--quantile", "0"]);
    let all = stdout(&["decide", &scores, "--quantile", "1"]);
    assert!(none.lines().skip(1).all(|line| line.ends_with(",TRUE,FALSE,0,")));
    assert_eq!(all, stdout(&["assign", &path, "--model", "quantiles", "--quantile", "1"]));
    let detected = |text: &str| text.lines().map(|line| line.rsplit(',').nth(1).map(str::to_owned)).collect::<Vec<_>>();
    let every_count = stdout(&["assign", &path, "--model", "umi", "--umi-threshold", "1"]);
    assert_eq!(detected(&all), detected(&every_count));
}

#[test]
fn scores_go_through_a_pipe() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let mut score = Command::new(env!("CARGO_BIN_EXE_kaichi"))
        .args(["score", &path, "--model", "poisson"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let decide = Command::new(env!("CARGO_BIN_EXE_kaichi"))
        .args(["decide", "-"])
        .stdin(score.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(score.wait().unwrap().success());
    assert_eq!(String::from_utf8(decide.stdout).unwrap(), stdout(&["assign", &path, "--model", "poisson"]));
}

#[test]
fn a_folder_takes_every_table() {
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let folder = folder("a_folder_takes_every_table");
    let out = folder.join("out");
    let out_text = out.display().to_string();
    for _ in 0..2 {
        assert_eq!(stdout(&["assign", &path, "--out", &out_text, "--batch", "lane", "--model", "poisson"]), "");
        assert_eq!(entries(&out), ["cells.csv", "fits.csv", "pairs.csv"]);
    }
    assert_eq!(stdout(&["score", &path, "--out", &out_text]), "");
    assert_eq!(entries(&out), ["cells.csv", "fits.csv", "pairs.csv", "scores.csv"]);
    let cells = stdout(&["assign", &path, "--batch", "lane", "--model", "poisson"]);
    assert_eq!(fs::read_to_string(out.join("cells.csv")).unwrap(), cells);

    let fits = folder.join("fits.csv").display().to_string();
    stdout(&["assign", &path, "--fits", &fits, "--batch", "lane_text", "--model", "poisson"]);
    let fits = fs::read_to_string(fits).unwrap();
    let header: Vec<&str> = fits.lines().next().unwrap().split(',').collect();
    for column in [
        "guide_id",
        "gamma_lane 1",
        "gamma_lane 2",
        "gamma_lane 3",
        "n_cells_called",
        "min_umi_called",
        "expected_precision",
        "warning",
    ] {
        assert!(header.contains(&column), "{column} is not in {header:?}");
    }
    assert_eq!(fits.lines().count(), 6);
    assert!(fits.lines().nth(1).unwrap().starts_with("guide-é1,"));
}

#[test]
fn data_errors_have_code_1_and_leave_nothing() {
    let folder = folder("data_errors");
    let out = folder.join("out").display().to_string();
    for (name, kind) in [
        ("bad-negative.h5ad", "counts"),
        ("bad-name-twice.h5ad", "names"),
        ("bad-text.h5ad", "file"),
        ("bad-encoding.h5ad", "format"),
        ("bad-mudata.h5ad", "file"),
    ] {
        let Some(path) = fixture(name) else { return };
        let (code, text) = refused(&["assign", &path, "--model", "umi", "--out", &out]);
        assert!(code == 1 && text.starts_with("kaichi: error (") && text.contains(name), "{name}: {code} {text}");
        assert!(text.starts_with(&format!("kaichi: error ({kind}): ")), "{text}");
    }
    let Some(path) = fixture("anndata-0.12.19-csr.h5ad") else { return };
    let (code, text) = refused(&["assign", &path, "--batch", "none", "--out", &out]);
    assert!(code == 1 && text.starts_with("kaichi: error (batch): "), "{text}");
    let (code, text) = refused(&["decide", &path, "--out", &out]);
    assert!(code == 1 && text.starts_with("kaichi: error (format): "), "{text}");
    let (code, text) = refused(&["assign", "nowhere.h5ad"]);
    assert!(code == 1 && text.starts_with("kaichi: error (file): "), "{text}");
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
    for (words, kind, says) in [
        (&[][..], "argument", "assign"),
        (&["asign"], "argument", "\"asign\""),
        (&["assign"], "argument", "INPUT.h5ad"),
        (&["assign", "x.h5ad", "--modell", "umi"], "argument", "--modell"),
        (&["assign", "x.h5ad", "--model", "gaus"], "model", "\"gauss\""),
        (&["score", "x.h5ad", "--model", "umi"], "model", "kaichi assign --model umi"),
        (&["assign", "x.h5ad", "--min-confidence", "2"], "argument", "from 0 to 1"),
        (&["assign", "x.h5ad", "--out", &deep], "argument", "no folder"),
        (&["assign", "x.h5ad", "--out", &csv, "--pairs", &csv], "argument", "the place of cells"),
        (&["assign", &input, "--out", &input], "argument", "the place of the input"),
        (&["assign", "x.h5ad", "--pairs", "/"], "argument", "folder"),
    ] {
        let (code, text) = refused(words);
        let start = format!("kaichi: error ({kind}): ");
        assert!(code == 2 && text.starts_with(&start) && text.contains(says), "{words:?}: {code} {text}");
    }
    assert_eq!(entries(&folder), ["in.h5ad"]);
    assert_eq!(fs::read_to_string(input).unwrap(), "kept");
}

#[test]
fn help_and_version() {
    assert_eq!(stdout(&["--version"]), format!("kaichi {}\n", env!("CARGO_PKG_VERSION")));
    for command in ["models", "assign", "score", "decide"] {
        assert!(stdout(&["--help"]).contains(&format!("\n  {command} ")));
        let help = stdout(&[command, "--help"]);
        assert!(help.contains(&format!("\nUsage: kaichi {command}")), "{help}");
    }
    for model in scoring_models() {
        assert!(stdout(&["assign", "--help"]).contains(&model), "{model}");
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
    stdout(&["assign", &path, "--model", "umi", "--out", &link_text, "--pairs", "/dev/null", "--fits", "/dev/null"]);
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert!(fs::read_to_string(folder.join("real.csv")).unwrap().starts_with(COLUMNS));
    assert_eq!(entries(&folder), ["link.csv", "real.csv"]);
}
