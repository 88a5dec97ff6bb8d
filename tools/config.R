# Run by configure in the root of the package: finds Rust and fills src/Makevars.in (or .win.in).
#
#   NOT_CRAN, DEBUG    development: src/rust/target is used and kept, crates come from the registry;
#                      DEBUG also builds without optimisation
#   CARGO_TARGET_DIR   build there, and keep it
#
# Otherwise the build happens inside src/ and is removed after linking, and src/rust/vendor.tar.xz, where it is part of
# the package, replaces the registry: no download, nothing written outside of the build.

source("tools/msrv.R")

windows <- .Platform$OS.type == "windows"
macos <- Sys.info()[["sysname"]] == "Darwin"
is_set <- function(name) !tolower(Sys.getenv(name)) %in% c("", "0", "false")

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
  rust <- rust_bin()

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
    # -S drops debug symbols of Rust's own library, half of the file; the other drops what is never called.
    SYSTEM_LIBS = if (macos) "" else if (debug) "-lpthread -ldl -lm" else "-lpthread -ldl -lm -Wl,-S,--gc-sections",
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
    if (vendored) "; vendored crates", if (development) "; development build"
  )
}

tryCatch(main(), error = function(e) {
  message("kaichi: ", conditionMessage(e))
  quit(status = 1L)
})
