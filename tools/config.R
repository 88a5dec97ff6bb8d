# Run by configure in the root of the package: finds Rust and HDF5 and fills src/Makevars.in (or .win.in).
#
#   NOT_CRAN, DEBUG    development: src/rust/target is used and kept, crates come from the registry;
#                      DEBUG also builds without optimisation
#   CARGO_TARGET_DIR   build there, and keep it
#   HDF5_DIR           the prefix of an HDF5 installation (include/, lib/)
#
# Otherwise the build happens inside src/ and is removed after linking, and src/rust/vendor.tar.xz, where it is part of
# the package, replaces the registry: no download, nothing written outside of the build.

source("tools/msrv.R")

windows <- .Platform$OS.type == "windows"
macos <- Sys.info()[["sysname"]] == "Darwin"
is_set <- function(name) !tolower(Sys.getenv(name)) %in% c("", "0", "false")

# The output of a command, or nothing where it is missing or fails.
said_by <- function(command, ...) {
  if (!nzchar(Sys.which(command))) return(character())
  out <- suppressWarnings(system2(command, c(...), stdout = TRUE, stderr = FALSE))
  if (is.null(attr(out, "status"))) out else character()
}

# ---- HDF5 ------------------------------------------------------------------------------------------------------------
# The places, and their order, are those of the build script of hdf5-metno-sys, which must find the same library;
# where it would not look by itself, `prefix` is handed to it as HDF5_DIR.

hdf5_candidates <- function() {
  at_prefix <- function(prefix) {
    list(include = file.path(prefix, "include"), libs = paste0("-L", file.path(prefix, "lib"), " -lhdf5"), prefix = prefix)
  }
  if (nzchar(dir <- Sys.getenv("HDF5_DIR"))) return(list(at_prefix(dir)))

  found <- list()
  libs <- if (!macos) said_by("pkg-config", "--libs", "hdf5")
  if (length(libs)) {
    flags <- strsplit(paste(said_by("pkg-config", "--cflags-only-I", "hdf5"), collapse = " "), " +")[[1L]]
    include <- c(sub("^-I", "", grep("^-I", flags, value = TRUE)), "/usr/include")
    found <- c(found, list(list(include = include, libs = trimws(paste(libs, collapse = " ")), prefix = "")))
  }
  brewed <- if (macos) said_by("brew", "--prefix", "hdf5")
  if (length(brewed)) found <- c(found, list(at_prefix(brewed[1L])))
  if (!windows && nzchar(h5cc <- Sys.which("h5cc"))) found <- c(found, list(at_prefix(dirname(dirname(h5cc)))))
  c(found, list(
    list(include = "/usr/include/hdf5/serial", libs = "-L/usr/lib/x86_64-linux-gnu/hdf5/serial -lhdf5", prefix = ""),
    list(include = "/usr/include", libs = "-lhdf5", prefix = "")
  ))
}

hdf5_version <- function(include) {
  header <- file.path(include, "H5public.h")
  header <- header[file.exists(header)]
  if (!length(header)) return(NULL)
  lines <- readLines(header[1L], warn = FALSE)
  number <- function(part) sub(".*[[:space:]]([0-9]+).*", "\\1", grep(paste0("#define[[:space:]]+H5_VERS_", part, "[[:space:]]"), lines, value = TRUE)[1L])
  package_version(paste(number("MAJOR"), number("MINOR"), number("RELEASE"), sep = "."))
}

# A library outside of the loader's own directories must be found again when the package is loaded.
runtime_path <- function(libs) {
  if (windows) return("")
  dirs <- sub("^-L", "", grep("^-L", strsplit(libs, " +")[[1L]], value = TRUE))
  dirs <- grep("^/(usr/)?lib", dirs, value = TRUE, invert = TRUE)
  paste0(" -Wl,-rpath,", dirs, recycle0 = TRUE, collapse = "")
}

find_hdf5 <- function() {
  minimum <- package_version("1.10")
  too_old <- NULL
  for (candidate in hdf5_candidates()) {
    version <- hdf5_version(candidate$include)
    if (is.null(version)) next
    if (version >= minimum) {
      candidate$version <- version
      candidate$libs <- paste0(candidate$libs, runtime_path(candidate$libs))
      return(candidate)
    }
    too_old <- version
  }
  problem <- if (nzchar(dir <- Sys.getenv("HDF5_DIR")) && is.null(too_old)) {
    paste0("HDF5_DIR is ", dir, ", and there is no include/H5public.h in it.")
  } else if (is.null(too_old)) {
    "The HDF5 library and its headers were not found: kaichi needs HDF5 1.10 or newer."
  } else {
    paste0("HDF5 ", too_old, " is too old: kaichi needs HDF5 1.10 or newer.")
  }
  stop(
    paste(
      c(
        problem,
        "  Debian, Ubuntu:  apt-get install libhdf5-dev pkg-config",
        "  Fedora:          dnf install hdf5-devel pkgconf-pkg-config",
        "  macOS:           brew install hdf5",
        "  Windows:         pacman -S mingw-w64-ucrt-x86_64-hdf5 in the Rtools shell, then HDF5_DIR=C:/rtools45/ucrt64",
        "  elsewhere:       set HDF5_DIR to the directory that has HDF5's include/ and lib/"
      ),
      collapse = "\n"
    ),
    call. = FALSE
  )
}

# ---- Crates ----------------------------------------------------------------------------------------------------------

# Unpacks the vendored crates and gives cargo a home in the build that knows no registry.
use_vendored <- function() {
  untar("src/rust/vendor.tar.xz", exdir = "src/rust", tar = "internal")
  dir.create("src/.cargo", showWarnings = FALSE)
  writeLines(
    c(
      "[source.crates-io]",
      "replace-with = \"vendored\"",
      "[source.vendored]",
      paste0("directory = \"", normalizePath("src/rust/vendor", "/"), "\"")
    ),
    "src/.cargo/config.toml"
  )
}

# ---- Makevars --------------------------------------------------------------------------------------------------------

main <- function() {
  # Both are looked for before either is reported as missing.
  rust <- tryCatch(rust_bin(), error = identity)
  hdf5 <- tryCatch(find_hdf5(), error = identity)
  missing <- Filter(function(found) inherits(found, "error"), list(rust, hdf5))
  if (length(missing)) stop(paste(vapply(missing, conditionMessage, ""), collapse = "\n"), call. = FALSE)

  debug <- is_set("DEBUG")
  development <- debug || is_set("NOT_CRAN")
  vendored <- !development && file.exists("src/rust/vendor.tar.xz")
  if (vendored) use_vendored()

  given_target <- Sys.getenv("CARGO_TARGET_DIR")
  target <- if (nzchar(given_target)) given_target else if (development) "rust/target" else ".target"
  # The archive is removed with the rest, or R's check finds the abort() of Rust's own library in it.
  leftovers <- c(if (target == ".target") ".target", if (vendored) c(".cargo", "rust/vendor"))

  # The shell of Rtools wants its own kind of path.
  rust_dir <- if (windows) paste0("`cygpath -u '", rust, "'`") else rust
  environment <- c(
    if (nzchar(rust)) paste0("PATH=\"", rust_dir, ":$$PATH\""),
    if (nzchar(hdf5$prefix)) paste0("HDF5_DIR=\"", hdf5$prefix, "\""),
    if (vendored) "CARGO_HOME=\"`pwd`/.cargo\""
  )
  arguments <- c(
    if (!debug) "--release",
    if (vendored) "--offline",
    # CRAN allows two jobs.
    if (!development && !nzchar(Sys.getenv("CARGO_BUILD_JOBS"))) "-j 2"
  )
  values <- c(
    TARGET_DIR = target,
    PROFILE_DIR = if (debug) "debug" else "release",
    HDF5_LIBS = hdf5$libs,
    # -S drops debug symbols of Rust's own library, half of the file.
    SYSTEM_LIBS = if (macos) "" else if (debug) "-lpthread -ldl -lm" else "-lpthread -ldl -lm -Wl,-S",
    CARGO_ENV = paste(environment, collapse = " "),
    CARGO_ARGS = paste(arguments, collapse = " "),
    TIDY = if (length(leftovers)) paste("rm -rf", paste(leftovers, collapse = " ")) else "@:"
  )

  makevars <- if (windows) "src/Makevars.win" else "src/Makevars"
  text <- readLines(paste0(makevars, ".in"))
  for (name in names(values)) text <- gsub(paste0("@", name, "@"), values[[name]], text, fixed = TRUE)
  writeLines(text, makevars)

  message(
    "kaichi: rustc ", program_version(rust, "rustc"), if (nzchar(rust)) paste0(" in ", rust),
    "; HDF5 ", hdf5$version, " (", hdf5$libs, ")",
    if (vendored) "; vendored crates", if (development) "; development build"
  )
}

tryCatch(main(), error = function(e) {
  message("kaichi: ", conditionMessage(e))
  quit(status = 1L)
})
