# Lines that the tests run, per file and in sum. Fails below 90 % of the core or of R.
#   Rscript tools/coverage.R rust   the Rust tests, compiled for it (llvm-cov and llvm-profdata of LLVM 19 or newer)
#   Rscript tools/coverage.R r      tests/testthat on a package that covr built
# Lines of test modules are not counted.
least <- 90

# rustup's own llvm-tools, or the newest of the machine.
llvm <- function(name) {
  own <- Sys.glob(file.path(system2("rustc", c("--print", "sysroot"), stdout = TRUE), "lib/rustlib/*/bin", name))
  path <- strsplit(Sys.getenv("PATH"), ":", fixed = TRUE)[[1L]]
  there <- list.files(path, paste0("^", name, "-[0-9]+$"), full.names = TRUE)
  there <- there[order(as.integer(sub(".*-", "", there)), decreasing = TRUE)]
  found <- c(own, there, Sys.which(name))
  found <- found[nzchar(found)]
  if (length(found) == 0L) stop("There is no ", name, ": install llvm, or rustup's llvm-tools.", call. = FALSE)
  found[[1L]]
}

# A data.frame of file, line and how often it was run.
rust_lines <- function() {
  target <- file.path(normalizePath("src/rust"), "target", "coverage")
  raw <- file.path(target, "raw")
  unlink(raw, recursive = TRUE)
  dir.create(raw, recursive = TRUE, showWarnings = FALSE)
  env <- c(
    paste0("CARGO_TARGET_DIR=", target), "RUSTFLAGS=-Cinstrument-coverage", paste0("LLVM_PROFILE_FILE=", raw, "/%p-%m.profraw")
  )
  log <- file.path(target, "tests.log")
  words <- c("test", "--locked", "--workspace", "--exclude", "kaichi", "--manifest-path", "src/rust/Cargo.toml")
  status <- system2("cargo", words, env = env, stdout = log, stderr = log)
  said <- readLines(log, warn = FALSE)
  if (status != 0L) {
    writeLines(utils::tail(said, 50L))
    stop("The Rust tests failed.", call. = FALSE)
  }
  tests <- unique(sub(".*Running .*\\((.*)\\)$", "\\1", grep("Running .*\\(.*\\)$", said, value = TRUE)))
  # Cargo names them from where it was called or in full.
  tests <- ifelse(startsWith(tests, "/"), tests, file.path(getwd(), tests))
  merged <- file.path(target, "all.profdata")
  status <- system2(llvm("llvm-profdata"), c("merge", "-sparse", "-o", merged, list.files(raw, full.names = TRUE)))
  if (status != 0L) stop("llvm-profdata failed with status ", status, ".", call. = FALSE)
  lcov <- system2(
    llvm("llvm-cov"),
    c(
      "export", "-format=lcov", paste0("-instr-profile=", merged), tests[1L],
      paste("-object", c(tests[-1L], file.path(target, "debug", "kaichi")))
    ),
    stdout = TRUE
  )
  if (!is.null(attr(lcov, "status"))) stop("llvm-cov failed with status ", attr(lcov, "status"), ".", call. = FALSE)
  is_file <- startsWith(lcov, "SF:")
  file <- sub("SF:", "", lcov[is_file], fixed = TRUE)[cumsum(is_file)]
  is_line <- startsWith(lcov, "DA:")
  numbers <- strsplit(sub("DA:", "", lcov[is_line], fixed = TRUE), ",", fixed = TRUE)
  lines <- data.frame(
    file = file[is_line], line = as.integer(vapply(numbers, `[`, "", 1L)), n = as.numeric(vapply(numbers, `[`, "", 2L))
  )
  here <- paste0(normalizePath("src/rust"), "/")
  lines <- lines[startsWith(lines$file, here) & grepl("/(core|cli)/src/", lines$file), ]
  first_test <- vapply(unique(lines$file), function(file) {
    c(grep("#[cfg(test)]", readLines(file, warn = FALSE), fixed = TRUE), .Machine$integer.max)[1L]
  }, 1L)
  lines <- lines[lines$line < first_test[lines$file], ]
  lines$file <- substring(lines$file, nchar(here) + 1L)
  lines
}

r_lines <- function() {
  options(covr.record_tests = FALSE)
  # What fails only where R code counts itself is no failure: tools/test.R judges.
  code <- sprintf(
    "testthat::test_dir(%s, package = \"kaichi\", load_package = \"installed\", reporter = \"check\", stop_on_failure = FALSE)",
    encodeString(file.path(getwd(), "tests/testthat"), quote = "\"")
  )
  covered <- covr::package_coverage(".", type = "none", code = code)
  lines <- covr::tally_coverage(covered, by = "line")
  lines <- lines[startsWith(lines$filename, "R/") & lines$filename != "R/extendr-wrappers.R", ]
  data.frame(file = lines$filename, line = lines$line, n = lines$value)
}

show <- function(lines) {
  # A line of several functions, or of one with several types, was run if one of them was.
  lines <- stats::aggregate(n ~ file + line, lines, max)
  table <- stats::aggregate(cbind(lines = 1, run = n > 0) ~ file, lines, sum)
  table$percent <- round(100 * table$run / table$lines, 1)
  print(table, row.names = FALSE)
  invisible(table)
}
total <- function(table, name) {
  percent <- 100 * sum(table$run) / sum(table$lines)
  cat(sprintf("coverage of %s: %.1f %% of %d lines\n", name, percent, as.integer(sum(table$lines))))
  percent
}

table <- switch(commandArgs(trailingOnly = TRUE)[1L], rust = show(rust_lines()), r = show(r_lines()))
parts <- if (startsWith(table$file[1L], "R/")) list(R = "") else list(core = "core/", "command line" = "cli/")
percents <- vapply(names(parts), function(name) total(table[startsWith(table$file, parts[[name]]), ], name), 1)
if (percents[[1L]] < least) quit(status = 1L)
