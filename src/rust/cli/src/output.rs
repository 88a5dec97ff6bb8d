//! Where results go. Files are written beside their place and moved there when all are complete.
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use kaichi_core::{Error, Result};

use crate::args::Args;

/// Writes one result.
pub type Writer<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

#[derive(Debug)]
enum Target {
    Stdout,
    /// A pipe or a device: it is written to, never replaced.
    Stream(PathBuf),
    File(PathBuf),
}

/// The targets of a command, checked before the work starts.
#[derive(Debug)]
pub struct Plan {
    /// The folder of `--out`.
    folder: Option<PathBuf>,
    targets: Vec<(&'static str, Target)>,
}

impl Plan {
    /// `tables` names the results, the first being what goes to standard output without `--out`. `--out` is a file for
    /// the first, or a folder for all; each of the others may have a file of its own, by the option of its name.
    pub fn new(args: &Args, tables: &[&'static str]) -> Result<Self> {
        let mut plan = Plan { folder: None, targets: vec![] };
        let out = args.path("out");
        if let Some(out) = out {
            if out.is_dir() || (!out.exists() && !is_csv(out)) {
                check_parent(out, "out")?;
                plan.folder = Some(out.to_owned());
            }
        }
        for (at, &table) in tables.iter().enumerate() {
            let option = if at == 0 { "out" } else { table };
            let target = match (args.path(option), &plan.folder, at) {
                (Some(path), _, 1..) => place(path, option)?,
                (_, Some(folder), _) => Target::File(folder.join(format!("{table}.csv"))),
                (Some(path), None, 0) => place(path, option)?,
                (None, None, 0) => Target::Stdout,
                _ => continue,
            };
            plan.targets.push((table, target));
        }
        plan.check_distinct(args.input())?;
        Ok(plan)
    }

    /// No result may replace the input or another result.
    fn check_distinct(&self, input: &Path) -> Result<()> {
        let mut taken: Vec<(PathBuf, &str)> = resolved(input).map(|path| (path, "the input")).into_iter().collect();
        for (table, target) in &self.targets {
            let Target::File(path) = target else { continue };
            let whole = resolved(path).unwrap_or_else(|| path.clone());
            if let Some((_, holder)) = taken.iter().find(|(other, _)| *other == whole) {
                return Err(Error::Argument(format!(
                    "\"{}\" cannot take the {table}: it is the place of {holder}. Give another file.",
                    path.display()
                )));
            }
            taken.push((whole, table));
        }
        Ok(())
    }

    /// Writes the results of the tables that were asked for.
    pub fn write(self, writers: Vec<(&str, Writer)>) -> Result<()> {
        let made_folder = match &self.folder {
            Some(folder) if !folder.is_dir() => {
                fs::create_dir(folder).map_err(|error| cannot(folder, error))?;
                Some(folder.as_path())
            }
            _ => None,
        };
        let result = self.write_staged(&writers);
        if let (Err(_), Some(folder)) = (&result, made_folder) {
            // It is empty again, as staged files remove themselves; if not, it had better stay.
            let _ = fs::remove_dir(folder);
        }
        result
    }

    fn write_staged(&self, writers: &[(&str, Writer)]) -> Result<()> {
        let writer = |table: &str| {
            let found = writers.iter().find(|(name, _)| *name == table).map(|(_, writer)| writer);
            found.ok_or_else(|| Error::Internal(format!("nothing writes the {table}")))
        };
        let mut staged = vec![];
        for (table, target) in &self.targets {
            if let Target::File(path) = target {
                staged.push(Staged::write(path, writer(table)?).map_err(|error| cannot(path, error))?);
            }
        }
        for (table, target) in &self.targets {
            match target {
                Target::Stdout => to_stdout(writer(table)?)?,
                Target::Stream(path) => {
                    let write = writer(table)?;
                    let opened = File::options().write(true).open(path);
                    finish(opened.and_then(|file| buffered(file, write)), path)?
                }
                Target::File(_) => {}
            }
        }
        staged.into_iter().try_for_each(Staged::commit)
    }
}

/// A complete file beside its place; dropped without a commit, it removes itself.
struct Staged {
    temporary: Option<PathBuf>,
    path: PathBuf,
}

impl Staged {
    fn write(path: &Path, writer: &Writer) -> io::Result<Self> {
        // The file that a link points to is replaced, not the link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        let staged = Staged { temporary: Some(temporary), path };
        buffered(file, writer)?;
        Ok(staged)
    }

    fn commit(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|error| cannot(&self.path, error))?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn buffered(to: impl Write, writer: &Writer) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, to);
    writer(&mut out)?;
    out.flush()
}

fn to_stdout(writer: &Writer) -> Result<()> {
    finish(buffered(io::stdout().lock(), writer), Path::new("standard output"))
}

/// A reader that has seen enough, such as head, is no error.
fn finish(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot(path, error)),
        _ => Ok(()),
    }
}

pub fn print(text: &str) -> Result<()> {
    let writer: Writer = Box::new(|out| out.write_all(text.as_bytes()));
    to_stdout(&writer)
}

fn cannot(path: &Path, error: io::Error) -> Error {
    Error::File(format!("\"{}\" cannot be written: {error}.", path.display()))
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

fn place(path: &Path, option: &str) -> Result<Target> {
    if path.is_dir() {
        return Err(Error::Argument(format!("--{option} is the folder \"{}\"; give a file.", path.display())));
    }
    if path.exists() && !path.is_file() {
        return Ok(Target::Stream(path.to_owned()));
    }
    check_parent(path, option)?;
    Ok(Target::File(path.to_owned()))
}

fn check_parent(path: &Path, option: &str) -> Result<()> {
    match parent(path) {
        Some(parent) if !parent.is_dir() => Err(Error::Argument(format!(
            "--{option} is \"{}\", but there is no folder \"{}\". Make it first.",
            path.display(),
            parent.display()
        ))),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// The absolute path of a file that may not exist yet; None where its folder does not.
fn resolved(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| Some(parent(path)?.canonicalize().ok()?.join(path.file_name()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{parse, Command, Opt, Parsed};

    const COMMAND: Command = Command {
        name: "try",
        input: Some("FILE"),
        about: "",
        notes: "",
        options: || vec![Opt::new("out", "PATH", ""), Opt::new("pairs", "FILE", "")],
        run: |_| Ok(()),
    };

    fn plan(words: &[&Path]) -> Plan {
        let words = words.iter().map(|word| word.as_os_str().to_owned()).collect();
        match parse(&COMMAND, &(COMMAND.options)(), words) {
            Ok(Parsed::Args(args)) => Plan::new(&args, &["cells", "pairs"]).unwrap(),
            _ => panic!("not parsed"),
        }
    }

    /// The first table is written, the second fails half-way.
    fn half_written() -> Vec<(&'static str, Writer<'static>)> {
        let fail = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        };
        vec![("cells", Box::new(|out| out.write_all(b"new"))), ("pairs", Box::new(fail))]
    }

    #[test]
    fn a_failed_write_leaves_everything_as_it_was() {
        let folder = std::env::temp_dir().join(format!("kaichi-output-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (cells, pairs, out) = (folder.join("cells.csv"), folder.join("pairs.csv"), folder.join("out"));
        fs::write(&cells, "old").unwrap();
        let [input, out_option, pairs_option] = ["in", "--out", "--pairs"].map(Path::new);

        let error = plan(&[input, out_option, &cells, pairs_option, &pairs]).write(half_written()).unwrap_err();
        assert!(error.to_string().contains("pairs.csv\" cannot be written: the disk is full."));
        assert_eq!(fs::read_to_string(&cells).unwrap(), "old");
        assert!(plan(&[input, out_option, &out]).write(half_written()).is_err());
        assert!(!out.exists());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

        let mut writers = half_written();
        writers[1].1 = Box::new(|out| out.write_all(b"whole"));
        plan(&[input, out_option, &cells, pairs_option, &pairs]).write(writers).unwrap();
        assert_eq!(fs::read_to_string(&cells).unwrap() + &fs::read_to_string(&pairs).unwrap(), "newwhole");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
    }
}
