//! Compiles HDF5 for static linking, with symbols that no other HDF5 of the process can meet.
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, thread};

const NAME: &str = "hdf5-2.2.0";

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Done<()> {
    println!("cargo::rerun-if-env-changed=HDF5_DIR");
    if env::var_os("HDF5_DIR").is_some() {
        // hdf5-metno-sys would link that one, whose lock and handlers of errors other packages of an R session may hold.
        return Err("HDF5_DIR is set, but kaichi takes its own HDF5: unset it.".into());
    }
    let archive = format!("{NAME}.tar.gz");
    for file in ["build.rs", "c", "include", &archive] {
        println!("cargo::rerun-if-changed={file}");
    }
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    println!("cargo::metadata=root={}", out.display());
    println!("cargo::metadata=include={}", here.join("include").display());
    println!("cargo::metadata=library=hdf5");
    // Clippy has folders of its own and links nothing.
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    let wrapper = env::var_os("RUSTC_WORKSPACE_WRAPPER").map(PathBuf::from);
    if wrapper.as_deref().and_then(Path::file_stem) == Some(OsStr::new("clippy-driver")) {
        return Ok(());
    }

    unpack(&here.join(archive), &out)?;
    let (ours, theirs) = (here.join("c"), out.join(NAME));

    let mut build = cc::Build::new();
    // HDF5 waits for the disk, and for what is inflated by Rust. Seconds of one core to compile: -O2 57, -O1 41, -O0 27.
    let level = if env::var("PROFILE")? == "debug" { 0 } else { 1 };
    build.opt_level(level).debug(false).warnings(false).cargo_metadata(false);
    // R packages bring another HDF5 into the process: neither may be called in place of the other.
    build.pic(true).flag_if_supported("-fvisibility=hidden");
    build.flag("-std=gnu11").flag("-w").include(&ours).include(&theirs);
    build.define("NDEBUG", None).define("_GNU_SOURCE", None).define("_FILE_OFFSET_BITS", "64");

    let mut files = c_files(&theirs)?;
    files.extend(c_files(&ours)?);
    let objects = compile(&build.try_get_compiler()?, &files, &out)?;
    let lib = out.join("lib");
    fs::create_dir_all(&lib)?;
    build.objects(objects).out_dir(&lib).try_compile("hdf5")?;
    Ok(())
}

/// From its standard input, as no program of that name takes the colon of a Windows path for one.
fn unpack(archive: &Path, folder: &Path) -> Done<()> {
    let status = Command::new("tar").arg("-xzf").arg("-").current_dir(folder).stdin(File::open(archive)?).status();
    match status.map_err(|error| format!("tar, which unpacks HDF5's sources, cannot be run: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("tar could not unpack {}: {status}", archive.display()).into()),
    }
}

/// In a fixed order, so that equal sources give equal archives.
fn c_files(folder: &Path) -> Done<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Done<Vec<_>>>()?;
    files.retain(|file| file.extension() == Some(OsStr::new("c")));
    files.sort();
    Ok(files)
}

/// The objects of the files, compiled on as many threads as cargo has jobs. What `parallel` of cc does takes more crates.
fn compile(compiler: &cc::Tool, files: &[PathBuf], out: &Path) -> Done<Vec<PathBuf>> {
    let jobs = env::var("NUM_JOBS")?.parse::<usize>()?.max(1);
    let one = |file: &PathBuf| -> Done<PathBuf> {
        let object = out.join(file.file_name().unwrap_or_default()).with_extension("o");
        let status = compiler.to_command().arg("-c").arg(file).arg("-o").arg(&object).status()?;
        if !status.success() {
            return Err(format!("{} does not compile: {status}", file.display()).into());
        }
        Ok(object)
    };
    thread::scope(|scope| {
        let job = |job: usize| move || files.iter().skip(job).step_by(jobs).map(one).collect::<Done<Vec<_>>>();
        let running: Vec<_> = (0..jobs).map(|number| scope.spawn(job(number))).collect();
        let done = running.into_iter().map(|job| job.join().unwrap_or_else(|_| Err("a thread panicked".into())));
        let mut objects = done.collect::<Done<Vec<_>>>()?.concat();
        objects.sort();
        Ok(objects)
    })
}
