//! Where results go. Files are written beside their place and moved there when they are complete.
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use kaichi_core::{Error, Result};

use crate::report::Unfinished;
use crate::tables::Writer;

/// A place for a result, checked before the work starts.
#[derive(Debug, PartialEq)]
pub enum Target {
    Stdout,
    /// A pipe or a device: it is written to, never replaced.
    Stream(PathBuf),
    File(PathBuf),
}

impl Target {
    /// `option` is what named the path; none is standard output. `taken` are the places of inputs and other outputs.
    pub fn new(path: Option<&Path>, option: &str, overwrite: bool, taken: &[&Path]) -> Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else { return Ok(Target::Stdout) };
        let shown = path.display();
        if path.is_dir() {
            return Err(Error::Argument(format!("--{option} is the folder \"{shown}\"; give a file.")));
        }
        if path.exists() && !path.is_file() {
            return Ok(Target::Stream(path.to_owned()));
        }
        let folder = parent(path).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Error::Argument(format!(
                "--{option} is \"{shown}\", but there is no folder \"{}\". Make it first.",
                folder.display()
            )));
        }
        let own = resolved(path);
        if own.is_some() && taken.iter().any(|other| resolved(other) == own) {
            return Err(Error::Argument(format!(
                "--{option} is \"{shown}\", which is the place of the input or of another output. Give another file."
            )));
        }
        if path.exists() && !overwrite {
            return Err(Error::Argument(format!(
                "--{option} is \"{shown}\", which exists already. Give another name, or --overwrite to replace it."
            )));
        }
        Ok(Target::File(path.to_owned()))
    }

    pub fn write(&self, writer: &Writer) -> Result<()> {
        match self {
            Target::Stdout => finish(buffered(io::stdout().lock(), writer), Path::new("standard output")),
            Target::Stream(path) => {
                let opened = File::options().write(true).open(path);
                finish(opened.and_then(|file| buffered(file, writer)), path)
            }
            Target::File(path) => {
                let unfinished = Unfinished::new();
                let staged = Staged::write(path, writer).map_err(|error| cannot(path, error))?;
                unfinished.check()?;
                staged.commit()
            }
        }
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
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        let staged = Staged { temporary: Some(temporary), path };
        if staged.path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz")) {
            let mut gzip = GzEncoder::new(file, flate2::Compression::default());
            buffered(&mut gzip, writer)?;
            gzip.finish()?;
        } else {
            buffered(file, writer)?;
        }
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

/// A reader that has seen enough, such as head, is no error.
fn finish(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot(path, error)),
        _ => Ok(()),
    }
}

pub fn print(text: &str) -> Result<()> {
    let writer: Writer = Box::new(|out| out.write_all(text.as_bytes()));
    Target::Stdout.write(&writer)
}

fn cannot(path: &Path, error: io::Error) -> Error {
    Error::File(format!("\"{}\" cannot be written: {error}.", path.display()))
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

    #[test]
    fn a_failed_write_leaves_everything_as_it_was() {
        let folder = std::env::temp_dir().join(format!("kaichi-output-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (old, new) = (folder.join("old.csv"), folder.join("new.csv"));
        fs::write(&old, "old").unwrap();
        let half: Writer = Box::new(|out| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        for path in [&old, &new] {
            let target = Target::new(Some(path), "output", true, &[]).unwrap();
            let error = target.write(&half).unwrap_err().to_string();
            assert!(error.contains("cannot be written: the disk is full."), "{error}");
        }
        assert_eq!(fs::read_to_string(&old).unwrap(), "old");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert!(Target::new(Some(&old), "output", false, &[]).is_err());
        assert!(Target::new(Some(&new), "output", false, &[&new]).is_err());
        let whole: Writer = Box::new(|out| out.write_all(b"new"));
        Target::new(Some(&old), "output", true, &[]).unwrap().write(&whole).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        fs::remove_dir_all(&folder).unwrap();
    }
}
