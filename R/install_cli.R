#' Install the command line
#'
#' Builds the program `kaichi`, which assigns guides in a shell or a pipeline without R, and puts it into a folder.
#'
#' The sources of the program are installed with the package and built by Rust's cargo, which takes a few minutes and downloads
#' the crates that the program needs beyond those of the package. Rust must be there as for the installation of the
#' package. The program needs neither R nor this
#' package when it runs. Its results are those of the package, bit for bit. `kaichi --help` says what it does; `kaichi man` is its
#' manual page, and `kaichi completions` writes the completions of bash, zsh and fish.
#'
#' In a clone of the repository, `cargo build --release --package kaichi-cli` in `src/rust` makes the same program, as
#' `target/release/kaichi`.
#'
#' @param dir The folder, which should be on the `PATH`; one string. It is made if it is not there.
#' @param overwrite Whether a program of this name that is there is replaced: TRUE or FALSE. FALSE makes it an error.
#' @param verbose Whether cargo shows what it does: TRUE or FALSE.
#' @return The path of the program, invisibly. A message says if `dir` is not on the `PATH`.
#' @section Errors:
#'   `kaichi_error_file` for a program that is there and a folder that cannot be written to; `kaichi_error_package` where cargo is
#'   missing or too old, or the build fails; `kaichi_error_argument`.
#' @examples
#' \dontrun{
#' install_cli()
#' system2("kaichi", "models")
#' }
#' @export
install_cli <- function(dir = "~/.local/bin", overwrite = FALSE, verbose = interactive()) {
  check_string(dir, "dir", "the path of a folder")
  check_flag(overwrite, "overwrite")
  check_flag(verbose, "verbose")
  dir <- path.expand(dir)
  program <- file.path(dir, if (.Platform$OS.type == "windows") "kaichi.exe" else "kaichi")
  refuse_existing(program, overwrite)
  if (!dir.exists(dir) && !dir.create(dir, recursive = TRUE, showWarnings = FALSE)) {
    abort("file", "The folder ", quote_names(dir), " of `dir` cannot be made. Give a folder that you may write to.")
  }
  build <- tempfile("kaichi-cli")
  dir.create(build)
  on.exit(unlink(build, recursive = TRUE))
  built <- build_cli(build, verbose)
  write_whole(program, function(unfinished) {
    if (!file.copy(built, unfinished)) stop("the folder may be read-only")
    Sys.chmod(unfinished, "755")
  })
  on_path <- normalizePath(dir) %in% suppressWarnings(normalizePath(strsplit(Sys.getenv("PATH"), .Platform$path.sep, fixed = TRUE)[[1L]]))
  if (!on_path) say_choice("kaichi is in ", quote_names(dir), ", which is not on the PATH: add it, or start it by its whole path.")
  invisible(program)
}

# Builds the program in the folder `build` and returns its path.
build_cli <- function(build, verbose) {
  sources <- system.file("rust", package = "kaichi")
  file.copy(file.path(sources, setdiff(list.files(sources), "msrv.R")), build, recursive = TRUE)
  target <- Sys.getenv("CARGO_TARGET_DIR", file.path(build, "target"))
  rust <- chartr("\\", "/", cargo_place(file.path(sources, "msrv.R")))
  log <- file.path(build, "build.log")
  shown <- if (verbose) "" else log
  status <- suppressWarnings(system2(
    if (nzchar(rust)) file.path(rust, "cargo") else "cargo",
    c(
      "build", "--release", "--locked", "--package", "kaichi-cli",
      # The compiler that belongs to that cargo.
      if (nzchar(rust)) c("--config", shQuote(paste0("build.rustc=\"", file.path(rust, "rustc"), "\""))),
      "--manifest-path", shQuote(file.path(build, "Cargo.toml")), "--target-dir", shQuote(target)
    ),
    stdout = shown, stderr = shown,
    # HDF5_DIR is for another HDF5 than the package's own. The shell forgets it; the session keeps it.
    env = if (.Platform$OS.type == "windows") character() else "unset HDF5_DIR;"
  ))
  if (status != 0L) {
    said <- if (verbose) "See above." else paste(utils::tail(readLines(log, warn = FALSE), 10L), collapse = "\n")
    abort("package", "cargo could not build the command line (status ", status, ").\n", said)
  }
  file.path(target, "release", if (.Platform$OS.type == "windows") "kaichi.exe" else "kaichi")
}

# The folder of a cargo that is new enough, "" if that is the PATH's.
cargo_place <- function(script) {
  tools <- new.env()
  sys.source(script, tools)
  tryCatch(
    tools$rust_bin(system.file("DESCRIPTION", package = "kaichi")),
    error = function(e) abort("package", conditionMessage(e))
  )
}
